"""What ``edged doctor`` makes of the machine, from trees of files as boards present them."""

import errno
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edged.hardware import health, health_board, health_build, health_disk
from edged.hardware.gpu import Gpu
from edged.hardware.health import Finding
from edged.hardware.machine import Machine, read_machine
from edged.hardware.profile import profile_folders, read_profile

SHIPPED = profile_folders()[:1]
CMDLINE = "console=tty1 root=PARTUUID=4e5a rootfstype=ext4 fsck.repair=yes rootwait"
FILE = "/boot/firmware/cmdline.txt"


def done(remedy: str, root: Path) -> str:
    """The boot parameters after the remedy's command has been obeyed, but for the reboot."""
    command = remedy[remedy.index("sudo sed") + len("sudo ") :].removesuffix(" && sudo reboot")
    subprocess.run(["sh", "-c", command.replace(FILE, f"{root}{FILE}")], check=True)
    return (root / FILE.lstrip("/")).read_text()


@pytest.fixture
def pi(board: Callable[[str], Path], tree: Any) -> Any:
    """A Raspberry Pi 5 as it is after the installation: no memory controller, no PSI."""
    board("pi5-8gb")
    tree.group("sys/fs/cgroup", cgroup__controllers="cpuset cpu io pids")
    tree.write(FILE.lstrip("/"), CMDLINE + "\n")
    tree.write("proc/cmdline", f"coherent_pool=1M cgroup_disable=memory {CMDLINE}\n")
    return tree


# The memory controller


def test_a_pi_without_the_boot_parameter_is_told_which_and_where(pi: Any) -> None:
    finding = health.memory_cgroup(pi.root)

    assert finding.outcome == "warning"
    assert finding.remedy == f"sudo sed -i '1 s/$/ cgroup_enable=memory/' {FILE} && sudo reboot"


def test_what_a_pi_is_told_puts_the_parameter_at_the_end_of_the_one_line(pi: Any) -> None:
    remedy = health.memory_cgroup(pi.root).remedy

    assert remedy
    assert done(remedy, pi.root) == f"{CMDLINE} cgroup_enable=memory\n"


def test_a_pi_with_the_boot_parameter_is_well(pi: Any) -> None:
    pi.group("sys/fs/cgroup", cgroup__controllers="cpuset cpu io memory pids")

    assert health.memory_cgroup(pi.root) == Finding(
        "ok", "the memory controller is on (control groups v2)"
    )


def test_a_parameter_that_was_written_but_not_booted_wants_a_reboot(pi: Any) -> None:
    pi.write(FILE.lstrip("/"), f"{CMDLINE} cgroup_enable=memory\n")

    remedy = health.memory_cgroup(pi.root).remedy
    assert remedy == f"cgroup_enable=memory stands in {FILE} already: sudo reboot"


def test_a_parameter_that_was_booted_in_vain_is_the_kernels_fault(pi: Any) -> None:
    pi.write(FILE.lstrip("/"), f"{CMDLINE} psi=1\n")
    pi.write("proc/cmdline", f"{CMDLINE} psi=1\n")

    assert "this kernel does not have it" in (health.pressure(pi.root).remedy or "")


def test_a_parameter_on_a_line_of_its_own_is_joined_to_the_first(pi: Any) -> None:
    pi.write(FILE.lstrip("/"), f"{CMDLINE}\ncgroup_enable=memory\npsi=1\n")

    remedy = health.memory_cgroup(pi.root).remedy

    assert remedy
    assert "counts only on the first line" in remedy
    assert done(remedy, pi.root) == f"{CMDLINE} cgroup_enable=memory psi=1\n"


def test_a_jetson_is_told_of_extlinux(board: Callable[[str], Path], tree: Any) -> None:
    board("jetson-orin-nano-8gb")
    tree.group("sys/fs/cgroup", cgroup__controllers="cpu")
    tree.write("boot/extlinux/extlinux.conf", "APPEND ${cbootargs} root=/dev/mmcblk0p1\n")

    remedy = health.memory_cgroup(tree.root).remedy

    assert remedy == (
        "add cgroup_enable=memory to the APPEND line of /boot/extlinux/extlinux.conf, "
        "then: sudo reboot"
    )


def test_a_pc_is_told_of_grub(tree: Any) -> None:
    tree.unified_cgroup("/", cgroup__controllers="cpu io")

    assert "/etc/default/grub" in (health.memory_cgroup(tree.root).remedy or "")


def test_the_memory_controller_of_version_1_counts(tree: Any) -> None:
    tree.write("proc/self/cgroup", "4:memory:/user\n0::/user\n")
    tree.write(
        "proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    tree.group("sys/fs/cgroup/memory/user")
    tree.group("sys/fs/cgroup/unified/user", cgroup__controllers="")

    assert health.memory_cgroup(tree.root).found.endswith("(control groups v1)")


def test_without_control_groups_nothing_is_said_against_them(tree: Any) -> None:
    assert health.memory_cgroup(tree.root).outcome == "not applicable"


# Pressure


def test_pressure_that_is_measured_is_told(tree: Any) -> None:
    tree.write(
        "proc/pressure/memory",
        "some avg10=1.00 avg60=2.50 avg300=0.10 total=42\nfull avg10=0.00 avg60=0.00\n",
    )

    finding = health.pressure(tree.root)

    assert (finding.outcome, "2.50 % of the last minute" in finding.found) == ("ok", True)


def test_pressure_that_is_not_there_wants_its_parameter(pi: Any) -> None:
    finding = health.pressure(pi.root)

    assert finding.outcome == "warning"
    assert finding.remedy == f"sudo sed -i '1 s/$/ psi=1/' {FILE} && sudo reboot"


def test_pressure_that_is_there_and_switched_off_wants_its_parameter(pi: Any) -> None:
    def read(path: Path) -> str:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    finding = health.pressure(pi.root, read)

    assert finding.outcome == "warning"
    assert "switched off" in finding.found
    assert "psi=1" in (finding.remedy or "")


def test_pressure_that_may_not_be_read_says_so(pi: Any) -> None:
    def read(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    assert "Permission denied" in health.pressure(pi.root, read).found


# Clock

NOW = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("synchronised", "outcome"), [(True, "ok"), (False, "warning"), (None, "not applicable")]
)
def test_a_clock_is_judged_by_what_the_kernel_says(
    tree: Any, synchronised: bool | None, outcome: str
) -> None:
    finding = health.clock(tree.root, NOW, synchronised=synchronised)

    assert finding.outcome == outcome
    assert "2026-05-01 09:30" in finding.found


def test_a_clock_that_systemd_has_set_is_well(tree: Any) -> None:
    tree.write("run/systemd/timesync/synchronized", "")

    assert health.clock(tree.root, NOW, synchronised=False).outcome == "ok"


def test_a_year_that_cannot_be_is_a_failure(tree: Any) -> None:
    finding = health.clock(tree.root, NOW.replace(year=1970), synchronised=True)

    assert finding.outcome == "failure"
    assert "timedatectl" in (finding.remedy or "")


def test_the_kernels_answer_is_read_where_it_stands() -> None:
    # linux/timex.h on 64 bits: modes and four longs come before.
    assert health._Timex.status.offset == 40
    assert health.kernel_clock_is_synchronised() in (True, False, None)


# Swap

SWAPS = "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0  partition\t2097148\t512\t100\n"


def test_swap_that_holds_nothing_of_ours_is_well(tree: Any) -> None:
    tree.write("proc/swaps", SWAPS)

    finding = health.swap(tree.root, 0)

    assert finding == Finding("ok", "/dev/zram0 of 2,048 MiB; nothing of edged is in it")


def test_swap_that_holds_weights_is_a_warning(tree: Any) -> None:
    tree.write("proc/swaps", SWAPS)

    finding = health.swap(tree.root, 300 * 2**20)

    assert finding.outcome == "warning"
    assert "300 MiB" in finding.found


# Temperatures


def zone(tree: Any, number: int, kind: str, temp: str, **trips: int) -> None:
    folder = f"sys/class/thermal/thermal_zone{number}"
    tree.write(f"{folder}/type", f"{kind}\n")
    tree.write(f"{folder}/temp", temp)
    for index, (trip, celsius) in enumerate(trips.items()):
        tree.write(f"{folder}/trip_point_{index}_type", f"{trip}\n")
        tree.write(f"{folder}/trip_point_{index}_temp", f"{celsius * 1000}\n")


PI5 = read_profile("pi5-8gb", SHIPPED)
ORIN = read_profile("jetson-orin-nano-8gb", SHIPPED)


def test_the_profiles_zone_tells_its_temperature(tree: Any) -> None:
    zone(tree, 0, "cpu-thermal", "48250\n", critical=110, active=50)

    (finding,) = health_board.thermal(tree.root, PI5)

    assert finding == Finding("ok", "cpu-thermal has 48 °C; edged slows down from 75 °C on")


def test_a_zone_that_is_not_there_names_those_that_are(tree: Any) -> None:
    zone(tree, 0, "CPU-therm", "48250\n")
    zone(tree, 1, "tj-therm", "48250\n")

    (finding,) = health_board.thermal(tree.root, ORIN)

    assert finding.outcome == "warning"
    assert "tj-thermal is not there: CPU-therm, tj-therm" in finding.found
    assert "/etc/edged/hw_profiles/jetson-orin-nano-8gb.toml" in (finding.remedy or "")


@pytest.mark.parametrize("temp", ["0\n", "-256000\n", "200000\n"])
def test_a_temperature_that_cannot_be_is_a_broken_sensor(tree: Any, temp: str) -> None:
    zone(tree, 0, "tj-thermal", temp)

    (finding,) = health_board.thermal(tree.root, ORIN)

    assert (finding.outcome, "a broken sensor" in finding.found) == ("warning", True)


def test_the_profiles_zone_that_is_off_is_a_warning(tree: Any) -> None:
    zone(tree, 0, "tj-thermal", "")

    (finding,) = health_board.thermal(tree.root, ORIN)

    assert (finding.outcome, "does not answer" in finding.found) == ("warning", True)


def test_another_zone_that_is_off_is_none_of_our_business(tree: Any) -> None:
    zone(tree, 0, "cv0-thermal", "")
    zone(tree, 1, "tj-thermal", "51000\n", passive=99, critical=104)

    assert [each.outcome for each in health_board.thermal(tree.root, ORIN)] == ["ok", "ok"]


def test_a_board_that_is_hot_wants_a_cooler(tree: Any) -> None:
    zone(tree, 0, "cpu-thermal", "81700\n")

    (finding,) = health_board.thermal(tree.root, PI5)

    assert (finding.outcome, "82 °C" in finding.found) == ("warning", True)
    assert "cooler" in (finding.remedy or "")


def test_a_trip_point_below_the_profiles_limit_is_noted(tree: Any) -> None:
    zone(tree, 0, "cpu-thermal", "48250\n", passive=70, critical=110, active=50)

    _, finding = health_board.thermal(tree.root, PI5)

    assert finding.found == (
        "the kernel's passive trip point of 70 °C is below the profile's 80 °C"
    )


def test_without_a_zone_in_the_profile_the_hottest_counts(tree: Any) -> None:
    generic = read_profile("generic-aarch64", SHIPPED)
    zone(tree, 0, "soc", "41000\n")
    zone(tree, 1, "big", "62000\n")
    zone(tree, 2, "gone", "200000\n")

    (finding,) = health_board.thermal(tree.root, generic)

    assert finding.found == "2 thermal zones; the hottest is big with 62 °C"


def test_a_virtual_machine_has_no_temperature(tree: Any) -> None:
    (finding,) = health_board.thermal(tree.root, None)

    assert finding.outcome == "not applicable"


def test_a_gpus_temperature_is_left_to_nvml(tree: Any) -> None:
    rtx = read_profile("rtx3060-12gb", SHIPPED)

    assert health_board.thermal(tree.root, rtx)[0].outcome == "not applicable"


# Power

PI4_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI5_FIRMWARE = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"


@pytest.mark.parametrize("path", [PI4_FIRMWARE, PI5_FIRMWARE])
def test_a_board_with_enough_power_is_well(tree: Any, path: str) -> None:
    tree.write(path, "0\n")

    assert health_board.power(tree.root) == [
        Finding("ok", "no under-voltage and no throttling since boot")
    ]


def test_under_voltage_now_and_before_is_told_apart(tree: Any) -> None:
    tree.write(PI5_FIRMWARE, "70005\n")

    now, before = health_board.power(tree.root)

    assert now.found == "now: under-voltage, throttled"
    assert "5 V 5 A" in (now.remedy or "")
    assert before.found == "since boot: clock capped"


def test_throttling_by_heat_wants_a_cooler_and_no_supply(tree: Any) -> None:
    tree.write(PI4_FIRMWARE, "8000c\n")

    (now,) = health_board.power(tree.root)

    assert now.found == "now: throttled, soft temperature limit"
    assert "cooler" in (now.remedy or "")
    assert "5 V" not in (now.remedy or "")


def test_under_voltage_that_only_the_sensor_driver_knows_counts(tree: Any) -> None:
    tree.write(PI5_FIRMWARE, "0\n")
    tree.write("sys/class/hwmon/hwmon2/name", "rpi_volt\n")
    tree.write("sys/class/hwmon/hwmon2/in0_lcrit_alarm", "1\n")

    (finding,) = health_board.power(tree.root)

    assert (finding.outcome, "alarm is on" in finding.found) == ("warning", True)


def test_the_sensor_driver_alone_is_enough(tree: Any) -> None:
    tree.write("sys/class/hwmon/hwmon2/name", "rpi_volt\n")
    tree.write("sys/class/hwmon/hwmon2/in0_lcrit_alarm", "0\n")

    assert [each.outcome for each in health_board.power(tree.root)] == ["ok"]


def test_a_pc_says_nothing_of_its_supply(tree: Any) -> None:
    assert [each.outcome for each in health_board.power(tree.root)] == ["not applicable"]


# GPU

PC = Machine("x86_64", "AMD Ryzen 5 5600X", 6, ("avx2",), 32 * 2**30)
RTX = Gpu("NVIDIA GeForce RTX 3060", 12288 * 2**20, 11500 * 2**20, "8.6", "550.54.14")


def test_a_pc_without_a_gpu_lacks_nothing(tree: Any) -> None:
    assert health_board.gpu(tree.root, PC, has_nvml=False)[0].outcome == "not applicable"


def test_a_gpu_without_a_driver_is_a_warning(tree: Any) -> None:
    tree.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    tree.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n")

    (finding,) = health_board.gpu(tree.root, PC, has_nvml=True)

    assert (finding.outcome, "driver is not loaded" in finding.found) == ("warning", True)


@pytest.mark.parametrize(
    ("has_nvml", "remedy"), [(False, "pip install 'edged[nvidia]'"), (True, "sudo reboot")]
)
def test_a_driver_that_edged_cannot_ask_is_a_warning(
    tree: Any, has_nvml: bool, remedy: str
) -> None:
    tree.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX 550.54.14\n")

    (finding,) = health_board.gpu(tree.root, PC, has_nvml=has_nvml)

    assert finding.outcome == "warning"
    assert remedy in (finding.remedy or "")


def test_a_gpu_that_can_be_used_is_named_with_its_driver(tree: Any) -> None:
    tree.write("dev/nvidiactl", "")

    findings = health_board.gpu(tree.root, replace(PC, gpus=(RTX,)), has_nvml=True)

    assert findings == [Finding("ok", "NVIDIA GeForce RTX 3060, driver 550.54.14")]


def test_a_device_that_this_user_may_not_open_wants_a_group(
    tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write("dev/nvmap", "")
    # root, as which these tests may run, may open everything.
    monkeypatch.setattr("os.access", lambda path, mode: False)

    (finding,) = health_board.gpu(tree.root, replace(PC, tegra_release="R36"), has_nvml=False)

    assert (finding.outcome, "/dev/nvmap" in finding.found) == ("warning", True)
    assert "usermod -aG video,render" in (finding.remedy or "")


def test_a_jetson_needs_no_nvml(board: Callable[[str], Path]) -> None:
    root = board("jetson-orin-nano-8gb")
    machine = read_machine(root, architecture="aarch64", gpus=lambda: ())

    (finding,) = health_board.gpu(root, machine, has_nvml=False)

    assert (finding.outcome, "R36" in finding.found) == ("ok", True)


# The build of the engine

PLAIN = "CPU : SSE3 = 1 | SSSE3 = 1 | LLAMAFILE = 1 | REPACK = 1 | "
HASWELL = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | "


def test_a_build_for_this_processor_is_well(tree: Any) -> None:
    tree.x86_cpus("Intel(R) Core(TM) i5-4570", cores=4)

    finding = health_build.build(HASWELL, health_build.cpu_flags(tree.root), "build")

    assert finding == Finding("ok", "llama.cpp was built for this processor (AVX2, F16C, FMA)")


def test_a_build_for_more_than_the_processor_has_will_crash(tree: Any) -> None:
    tree.x86_cpus("Intel(R) Core(TM) i5-4570", cores=4)
    info = HASWELL + "AVX512 = 1 | AVX512_VNNI = 1 | "

    finding = health_build.build(info, health_build.cpu_flags(tree.root), "build")

    assert (finding.outcome, finding.remedy) == ("failure", "build")
    assert "AVX512, AVX512_VNNI, which this processor does not have" in finding.found


def test_a_build_for_less_than_the_processor_has_is_slow(tree: Any) -> None:
    tree.x86_cpus("Intel(R) Core(TM) i5-4570", cores=4)

    finding = health_build.build(PLAIN, health_build.cpu_flags(tree.root), "build")

    assert (finding.outcome, finding.remedy) == ("warning", "build")
    assert "without AVX2, F16C, FMA, which this processor has" in finding.found


@pytest.mark.parametrize(("board_name", "outcome"), [("pi5-8gb", "warning"), ("pi4-8gb", "ok")])
def test_a_build_without_dotprod_is_slow_where_there_is_dotprod(
    board: Callable[[str], Path], board_name: str, outcome: str
) -> None:
    flags = health_build.cpu_flags(board(board_name))

    finding = health_build.build("CPU : NEON = 1 | ARM_FMA = 1 | ", flags, "build")

    assert finding.outcome == outcome


def test_a_build_for_a_pi_5_crashes_on_a_pi_4(board: Callable[[str], Path]) -> None:
    flags = health_build.cpu_flags(board("pi4-8gb"))

    finding = health_build.build("CPU : NEON = 1 | FP16_VA = 1 | DOTPROD = 1 | ", flags, "build")

    assert (finding.outcome, "FP16_VA, DOTPROD" in finding.found) == ("failure", True)


def test_what_cannot_be_told_is_no_fault(tree: Any) -> None:
    assert health_build.build(HASWELL, health_build.cpu_flags(tree.root), "").outcome == "ok"


# Disks

DISK = health_disk.Disk(Path("/var/lib/edged"), 30 * 2**30, False, "ext4", "/dev/mmcblk0p2")


@pytest.mark.parametrize(
    ("change", "outcome", "word"),
    [
        ({}, "ok", "30.0 GiB free, on a memory card or eMMC"),
        ({"free_bytes": 200 * 2**20}, "warning", "200 MiB free"),
        ({"free_bytes": 2**20}, "failure", "1 MiB free"),
        ({"kind": "tmpfs"}, "warning", "lost at each boot"),
        ({"is_read_only": True}, "failure", "mounted read-only"),
    ],
)
def test_the_disk_of_the_state_is_judged(change: dict[str, Any], outcome: str, word: str) -> None:
    finding = health_disk.state_disk(replace(DISK, **change))

    assert (finding.outcome, word in finding.found) == (outcome, True)
    assert (finding.remedy is None) == (outcome == "ok")


@pytest.mark.parametrize(
    ("change", "has_models", "outcome"),
    [
        ({}, False, "ok"),
        ({"free_bytes": 2**30}, False, "warning"),
        ({"free_bytes": 2**30}, True, "ok"),
        ({"is_read_only": True}, False, "warning"),
        ({"is_read_only": True}, True, "ok"),
        ({"kind": "tmpfs"}, True, "warning"),
    ],
)
def test_the_disk_of_the_store_matters_where_a_model_is_to_come(
    change: dict[str, Any], has_models: bool, outcome: str
) -> None:
    assert health_disk.store_disk(replace(DISK, **change), has_models=has_models).outcome == outcome


def test_a_folder_that_is_to_be_made_is_on_the_deepest_mount_above_it(
    tree: Any, tmp_path: Path
) -> None:
    here = tmp_path.resolve()
    tree.write(
        "proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"2 1 0:30 / {here} rw shared:1 - tmpfs tmpfs rw\n"
        f"3 1 0:31 / {here}/other rw - btrfs /dev/sdb rw\n",
    )

    disk = health_disk.disk_of(tmp_path / "not" / "yet", tree.root)

    assert (disk.kind, disk.source) == ("tmpfs", "tmpfs")
    assert disk.free_bytes > 0


def test_the_clock_of_the_cores_is_optional(tree: Any) -> None:
    assert health_board.clock_cap(tree.root).outcome == "not applicable"

    tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "2400000\n")
    assert health_board.clock_cap(tree.root).outcome == "ok"
