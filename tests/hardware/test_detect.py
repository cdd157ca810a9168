"""Which profile a machine gets, from trees of files as boards present them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.errors import ConfigError, EdgedError
from edged.hardware.detect import DECODE_SHARE_OF_READS, Detection, detect
from edged.hardware.gpu import Gpu
from edged.hardware.profile import profile_folders

SHIPPED = profile_folders()[0]
BOARDS = (
    "pi5-8gb",
    "pi5-16gb",
    "pi4-8gb",
    "jetson-orin-nano-8gb",
    "jetson-orin-nx-16gb",
    "jetson-agx-orin-64gb",
)
RTX_3060 = Gpu("NVIDIA GeForce RTX 3060", 12288 * 2**20, 11500 * 2**20, "8.6", "550.54.14")
RTX_3060_8GB = Gpu("NVIDIA GeForce RTX 3060", 8192 * 2**20, 7500 * 2**20, "8.6", "550.54.14")
# What NVML says of a Jetson: a name, and little else.
ORIN = Gpu("Orin (nvgpu)", None, None, None, "540.4.0")


def found(root: Path, architecture: str, *gpus: Gpu, **more: Any) -> Detection:
    more = {"folders": [SHIPPED], "measure": never} | more
    return detect(root, architecture=architecture, gpus=lambda: gpus, **more)


def never(state_dir: Path, identity: object) -> float:
    raise AssertionError("the bandwidth of a known board is not measured")


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_gets_its_profile(board: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    gpus = [ORIN] if name.startswith("jetson") else []

    detection = found(board(name), "aarch64", *gpus, state_dir=tmp_path)

    assert detection.profile.name == name
    assert detection.profile.path == SHIPPED / f"{name}.toml"


@pytest.mark.parametrize("name", BOARDS)
def test_a_profile_says_of_a_board_what_the_board_says_itself(
    board: Callable[[str], Path], name: str
) -> None:
    detection = found(board(name), "aarch64")
    profile, machine = detection.profile, detection.machine

    assert profile.cpu.cores == machine.cores
    assert profile.cpu.isa == machine.isa
    assert profile.memory.total_bytes == pytest.approx(machine.memory_bytes, rel=0.03)


def test_the_evidence_is_told_in_words(board: Callable[[str], Path]) -> None:
    assert found(board("pi5-8gb"), "aarch64").evidence == (
        "device tree compatible: brcm,bcm2712",
        "memory: 7942 MiB",
    )


@pytest.mark.parametrize(
    "name", ["jetson-orin-nano-8gb", "jetson-orin-nx-16gb", "jetson-agx-orin-64gb"]
)
def test_a_jetson_is_known_in_a_container_that_hides_the_device_tree(
    board: Callable[[str], Path], name: str
) -> None:
    root = board(name)
    for file in (root / "proc/device-tree").iterdir():
        file.unlink()

    detection = found(root, "aarch64")

    assert detection.profile.name == name
    assert detection.evidence[0] == "tegra release: R36"


def test_a_board_with_less_memory_is_not_taken_for_the_larger(
    board: Callable[[str], Path], tree: Any
) -> None:
    root = board("pi5-8gb")
    tree.memory(4_000_000)

    assert found(root, "aarch64").profile.name == "generic-aarch64"


def test_a_pc_with_the_card_gets_its_profile_with_its_own_cpu_and_ram(
    tree: Any, tmp_path: Path
) -> None:
    tree.x86_cpus("12th Gen Intel(R) Core(TM) i5-12400F", cores=6, threads_a_core=2)
    tree.memory(32_780_000)

    profile = found(tree.root, "x86_64", RTX_3060, state_dir=tmp_path).profile

    assert profile.name == "rtx3060-12gb"
    assert profile.memory.total_mib == 32_780_000 // 1024
    assert (profile.cpu.cores, profile.cpu.threads_decode) == (6, 6)
    assert {"avx2", "fma", "f16c"} <= set(profile.cpu.isa)


def test_the_card_with_less_memory_and_the_same_name_is_another(tree: Any) -> None:
    tree.x86_cpus("AMD Ryzen 5 5600X 6-Core Processor", cores=6)

    assert found(tree.root, "x86_64", RTX_3060_8GB).profile.name == "generic-x86_64"


def test_any_of_several_cards_may_be_the_one(tree: Any) -> None:
    tree.x86_cpus("AMD Ryzen 5 5600X 6-Core Processor", cores=6)

    assert found(tree.root, "x86_64", RTX_3060_8GB, RTX_3060).profile.name == "rtx3060-12gb"


def test_a_plain_vm_gets_the_generic_profile_filled_in(tree: Any, tmp_path: Path) -> None:
    tree.x86_cpus("QEMU Virtual CPU version 2.5+", cores=4)
    tree.memory(16_000_000)
    asked: list[Path] = []

    def measure(state_dir: Path, identity: dict[str, str | int]) -> float:
        asked.append(state_dir)
        assert identity == {
            "cpu_model": "QEMU Virtual CPU version 2.5+",
            "cores": 4,
            "memory_gib": 15,
        }
        return 20e9

    detection = found(tree.root, "x86_64", state_dir=tmp_path, measure=measure)

    profile = detection.profile
    assert profile.name == "generic-x86_64"
    assert profile.memory.total_bytes == 16_000_000 // 1024 * 2**20
    assert (profile.cpu.cores, profile.cpu.threads_prefill, profile.cpu.threads_decode) == (4, 4, 4)
    assert profile.bandwidth.decode_bytes_per_s == pytest.approx(20e9 * DECODE_SHARE_OF_READS)
    assert asked == [tmp_path]
    assert detection.evidence[0] == "architecture: x86_64"
    assert detection.evidence[-1] == "memory reads measured: 20.0 GB/s, of which decoding gets 70%"


def test_a_plain_arm_server_gets_the_generic_profile_with_its_instructions(tree: Any) -> None:
    tree.arm_cpus("neoverse-v1", 8)

    profile = found(tree.root, "aarch64").profile

    assert profile.name == "generic-aarch64"
    assert profile.cpu.isa == ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve")
    assert profile.cpu.cores == 8


def test_without_a_state_folder_nothing_is_measured(tree: Any) -> None:
    tree.arm_cpus("neoverse-v1", 8)

    assert found(tree.root, "aarch64").profile.bandwidth.decode_bytes_per_s is None


def test_a_measurement_that_fails_is_told_and_costs_nothing_else(tree: Any, tmp_path: Path) -> None:
    tree.arm_cpus("neoverse-v1", 8)

    def measure(state_dir: Path, identity: object) -> float:
        raise EdgedError("the memory's bandwidth cannot be measured: out of memory")

    detection = found(tree.root, "aarch64", state_dir=tmp_path, measure=measure)

    assert detection.profile.bandwidth.decode_bytes_per_s is None
    assert detection.evidence[-1].endswith("out of memory")


def test_a_machine_that_nothing_matches_is_told_what_to_do(tree: Any) -> None:
    with pytest.raises(ConfigError, match=r"matches this machine \(riscv64\); write one"):
        found(tree.root, "riscv64")


def test_a_profile_of_the_operator_wins_where_rules_say_the_same(
    board: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "kitchen.toml").write_text('extends = "pi5-8gb"\ndescription = "kitchen"\n')

    detection = found(board("pi5-8gb"), "aarch64", folders=[SHIPPED, tmp_path])

    assert detection.profile.name == "kitchen"


def test_a_more_specific_rule_wins_over_one_of_the_operator(
    board: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "any.toml").write_text('extends = "generic-aarch64"\ndescription = "any"\n')

    detection = found(board("pi5-8gb"), "aarch64", folders=[SHIPPED, tmp_path])

    assert detection.profile.name == "pi5-8gb"


def test_a_broken_profile_is_told_of_in_the_evidence(
    board: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "kitchen.toml").write_text('extends = "pi5-8gb"\ncolour = "white"\n')

    detection = found(board("pi5-8gb"), "aarch64", folders=[SHIPPED, tmp_path])

    assert detection.profile.name == "pi5-8gb"
    assert detection.evidence[-1] == (
        f"left out: hardware profile {tmp_path}/kitchen.toml, line 2: colour: is not known"
    )


def test_cores_count_once_however_many_threads_they_run(tree: Any) -> None:
    tree.x86_cpus("Intel(R) Core(TM) i7-8700", cores=6, threads_a_core=2)

    assert found(tree.root, "x86_64").profile.cpu.cores == 6


def test_only_cores_that_affinity_allows_count(tree: Any) -> None:
    tree.arm_cpus("neoverse-v1", 8)
    tree.allow("0-1,6")

    assert found(tree.root, "aarch64").profile.cpu.cores == 3


def test_a_quota_on_the_way_up_limits_the_cores(tree: Any) -> None:
    tree.arm_cpus("neoverse-v1", 8)
    tree.unified_cgroup("/a.slice/b.slice/edged.service", cpu__max="max 100000")
    tree.group("sys/fs/cgroup/a.slice/b.slice", cpu__max="250000 100000")
    tree.group("sys/fs/cgroup/a.slice", cpu__max="400000 100000")

    assert found(tree.root, "aarch64").profile.cpu.cores == 2


def test_a_quota_of_the_older_hierarchy_limits_the_cores(tree: Any) -> None:
    tree.arm_cpus("neoverse-v1", 8)
    tree.write("proc/self/cgroup", "2:cpu,cpuacct:/docker/abc\n0::/\n")
    tree.write(
        "proc/self/mountinfo",
        "33 31 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n",
    )
    tree.group("sys/fs/cgroup/cpu", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")

    assert found(tree.root, "aarch64").profile.cpu.cores == 1


def test_a_tree_with_nothing_but_meminfo_is_a_machine_of_one_core(tree: Any) -> None:
    assert found(tree.root, "aarch64").profile.cpu.cores == 1


def test_this_machine_is_detected() -> None:
    detection = detect(folders=[SHIPPED])

    assert detection.profile.cpu.cores
    assert detection.profile.memory.total_bytes
    assert detection.profile.cpu.isa
