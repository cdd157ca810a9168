"""Trees of files as boards present them under ``/``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ARM_FEATURES = {
    # /proc/cpuinfo of Raspberry Pi OS and of Jetson Linux
    "cortex-a72": "fp asimd evtstrm crc32 cpuid",
    "cortex-a76": (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp"
    ),
    "cortex-a78ae": (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp uscat ilrcpc flagm paca pacg"
    ),
    "neoverse-v1": (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt "
        "fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm i8mm bf16"
    ),
}
X86_FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse sse2 "
    "ht syscall nx pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c "
    "rdrand lahf_lm abm bmi1 avx2 bmi2"
)
CGROUP2_MOUNT = "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"


@dataclass
class Tree:
    """Files below ``root``; ``write`` takes a path from there and its text."""

    root: Path
    files: list[str] = field(default_factory=list)

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def memory(self, total_kib: int, available_kib: int | None = None) -> None:
        available = total_kib * 9 // 10 if available_kib is None else available_kib
        self.write(
            "proc/meminfo",
            f"MemTotal:       {total_kib:>8} kB\nMemFree:        {available // 2:>8} kB\n"
            f"MemAvailable:   {available:>8} kB\nBuffers:           40788 kB\n"
            "SwapTotal:        524288 kB\nSwapFree:         524288 kB\nHugePages_Total:       0\n",
        )

    def device_tree(self, model: str, *compatible: str) -> None:
        self.write("proc/device-tree/model", model + "\0")
        self.write("proc/device-tree/compatible", "".join(f"{each}\0" for each in compatible))

    def arm_cpus(self, core: str, count: int, trailer: str = "") -> None:
        blocks = [
            f"processor\t: {cpu}\nBogoMIPS\t: 108.00\nFeatures\t: {ARM_FEATURES[core]}\n"
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\n\n"
            for cpu in range(count)
        ]
        self.write("proc/cpuinfo", "".join(blocks) + trailer)
        self.allow(f"0-{count - 1}")

    def x86_cpus(self, model: str, cores: int, threads_a_core: int = 1) -> None:
        blocks = [
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: {model}\n"
            f"physical id\t: 0\nsiblings\t: {cores * threads_a_core}\n"
            f"core id\t\t: {cpu % cores}\ncpu cores\t: {cores}\nflags\t\t: {X86_FLAGS}\n\n"
            for cpu in range(cores * threads_a_core)
        ]
        self.write("proc/cpuinfo", "".join(blocks))
        self.allow(f"0-{cores * threads_a_core - 1}")

    def allow(self, cpus: str) -> None:
        self.write("proc/self/status", f"Name:\tpython3\nCpus_allowed_list:\t{cpus}\n")

    def unified_cgroup(self, path: str, **files: str) -> None:
        """A control group v2 below the root, and that this process is in it."""
        self.write("proc/self/cgroup", f"0::{path}\n")
        self.write("proc/self/mountinfo", CGROUP2_MOUNT)
        self.group(f"sys/fs/cgroup{path}", **files)

    def group(self, folder: str, **files: str) -> None:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            self.write(f"{folder}/{name.replace('__', '.')}", text + "\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path / "root")
    made.memory(8_000_000)
    return made


def _pi(tree: Tree, model: str, name: str, chip: str, core: str, memory_kib: int) -> None:
    tree.device_tree(model, f"raspberrypi,{name}", f"brcm,{chip}")
    tree.arm_cpus(
        core, 4, f"Revision\t: d04170\nSerial\t\t: 1000000012345678\nModel\t\t: {model}\n"
    )
    tree.memory(memory_kib)
    tree.unified_cgroup("/system.slice/edged.service", cpu__max="max 100000")


def _jetson(tree: Tree, model: str, carrier: str, module: str, cores: int, memory_kib: int) -> None:
    both = f"nvidia,{carrier}+{module}"
    tree.device_tree(model, f"{both}-super", both, f"nvidia,{module}", "nvidia,tegra234")
    tree.arm_cpus("cortex-a78ae", cores)
    tree.memory(memory_kib)
    tree.write(
        "etc/nv_tegra_release",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    )
    tree.unified_cgroup("/system.slice/edged.service", cpu__max="max 100000")


BOARDS: dict[str, Callable[[Tree], None]] = {
    "pi5-8gb": lambda tree: _pi(
        tree, "Raspberry Pi 5 Model B Rev 1.0", "5-model-b", "bcm2712", "cortex-a76", 8132608
    ),
    "pi5-16gb": lambda tree: _pi(
        tree, "Raspberry Pi 5 Model B Rev 1.1", "5-model-b", "bcm2712", "cortex-a76", 16604160
    ),
    "pi4-8gb": lambda tree: _pi(
        tree, "Raspberry Pi 4 Model B Rev 1.4", "4-model-b", "bcm2711", "cortex-a72", 7999428
    ),
    "jetson-orin-nano-8gb": lambda tree: _jetson(
        tree,
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        *("p3768-0000", "p3767-0005", 6, 7801856),
    ),
    "jetson-orin-nx-16gb": lambda tree: _jetson(
        tree,
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        *("p3768-0000", "p3767-0000", 8, 16043636),
    ),
    "jetson-agx-orin-64gb": lambda tree: _jetson(
        tree,
        "NVIDIA Jetson AGX Orin Developer Kit",
        *("p3737-0000", "p3701-0005", 12, 64334848),
    ),
}


@pytest.fixture
def board(tree: Tree) -> Callable[[str], Path]:
    """The root folder of a board by its profile's name."""

    def make(name: str) -> Path:
        BOARDS[name](tree)
        return tree.root

    return make
