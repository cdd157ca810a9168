"""What a machine says of itself, read from /proc, /etc and NVML without judging it."""

import functools
import math
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.hardware.cgroups import groups, read_text
from edged.hardware.gpu import Gpu
from edged.hardware.gpu import gpus as nvml_gpus
from edged.hardware.memory import meminfo_bytes

_ISA: Final = {
    # x86: /proc/cpuinfo "flags" (arch/x86/include/asm/cpufeatures.h)
    "sse4_2": "sse42",
    "avx": "avx",
    "avx2": "avx2",
    "f16c": "f16c",
    "fma": "fma",
    "bmi2": "bmi2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    # ARM: /proc/cpuinfo "Features" (Documentation/arch/arm64/elf_hwcaps.rst)
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}


@dataclass(frozen=True)
class Machine:
    """Names are empty where the machine does not give them."""

    architecture: str
    cpu_model: str
    cores: int
    """Physical ones that this process may use, by affinity and control group."""
    isa: tuple[str, ...]
    memory_bytes: int
    device_tree_model: str = ""
    device_tree_compatible: tuple[str, ...] = ()
    tegra_release: str = ""
    """The release of Jetson Linux, as R36."""
    gpus: tuple[Gpu, ...] = ()

    @property
    def identity(self) -> dict[str, str | int]:
        """What a measurement of this machine holds for, whatever boots or kernel it has had."""
        return {
            "cpu_model": self.cpu_model or self.device_tree_model,
            "cores": self.cores,
            # Kernels and firmware differ in the last MiB that they keep for themselves.
            "memory_gib": round(self.memory_bytes / 2**30),
        }


def read_machine(
    root: Path = Path("/"),
    *,
    architecture: str | None = None,
    gpus: Callable[[], tuple[Gpu, ...]] = nvml_gpus,
) -> Machine:
    """Read this machine; ``root`` stands for ``/``, ``architecture`` for uname's word.

    Raises ``EdgedError`` without /proc/meminfo; anything else may be missing.
    """
    cpus = _cpuinfo(root)
    first = cpus[0] if cpus else {}
    release = re.match(r"# R(\d+) ", read_text(root / "etc/nv_tegra_release") or "")
    flags = (first.get("flags") or first.get("Features") or "").split()
    return Machine(
        architecture=architecture or platform.machine(),
        cpu_model=first.get("model name", ""),
        cores=_cores(root, cpus),
        isa=tuple(name for flag, name in _ISA.items() if flag in flags),
        memory_bytes=meminfo_bytes(root)["MemTotal"],
        device_tree_model=_board(root),
        device_tree_compatible=_strings(root / "proc/device-tree/compatible"),
        tegra_release=f"R{release[1]}" if release else "",
        gpus=gpus(),
    )


@functools.cache
def device_name(root: Path = Path("/")) -> str:
    """The board's name from the device tree, else the processor's, else its architecture."""
    cpus = _cpuinfo(root)
    return _board(root) or (cpus[0].get("model name") if cpus else None) or platform.machine()


def _board(root: Path) -> str:
    return next(iter(_strings(root / "proc/device-tree/model")), "")


def _strings(path: Path) -> tuple[str, ...]:
    """A property of the device tree: strings that end in a null byte."""
    return tuple(part for part in (read_text(path) or "").split("\0") if part)


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """One mapping a logical CPU; what follows the last of them (a Pi's model) is left out."""
    cpus = []
    for block in (read_text(root / "proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        cpu = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" in cpu:
            cpus.append(cpu)
    return cpus


def _cores(root: Path, cpus: Iterable[dict[str, str]]) -> int:
    """Two threads of one core share its arithmetic and count once; a quota is rounded down."""
    allowed = _allowed(read_text(root / "proc/self/status") or "")
    cores = {
        (cpu.get("physical id"), cpu.get("core id", f"cpu {cpu['processor']}"))
        for cpu in cpus
        if allowed is None or int(cpu["processor"]) in allowed
    }
    return max(1, min(len(cores), math.floor(_quota(root))) if cores else len(allowed or ()))


def _allowed(status: str) -> set[int] | None:
    """The CPUs of ``Cpus_allowed_list: 0-3,6``."""
    line = re.search(r"^Cpus_allowed_list:\s*([\d,-]+)$", status, re.MULTILINE)
    if line is None:
        return None
    allowed: set[int] = set()
    for part in line[1].split(","):
        begin, _, end = part.partition("-")
        allowed |= set(range(int(begin), int(end or begin) + 1))
    return allowed


def _quota(root: Path) -> float:
    """CPUs' worth of time that the tightest control group grants."""
    granted = math.inf
    for group in groups(root, "self", "cpu"):
        if group.version == 2:
            fields = (read_text(group.folder / "cpu.max") or "").split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            fields = [(read_text(group.folder / name) or "").strip() for name in names]
        # "max" and -1 are no limit.
        if len(fields) == 2 and all(field.isdecimal() and int(field) for field in fields):
            granted = min(granted, int(fields[0]) / int(fields[1]))
    return min(granted, 1024)
