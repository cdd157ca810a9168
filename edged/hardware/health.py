"""Whether the system lets edged do its work: control groups, pressure, clock, swap.

Each check of ``edged doctor`` reads the machine and says what it found and what to do; none
writes anything. ``root`` stands for ``/``.
"""

import ctypes
import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from edged.hardware.cgroups import groups, read_text

Outcome = Literal["ok", "warning", "failure", "not applicable"]

EARLIEST_YEAR: Final = 2025
"""No clock that is right says an earlier one."""
_STA_UNSYNC: Final = 0x0040  # linux/timex.h
_MIB: Final = 2**20


@dataclass(frozen=True)
class Finding:
    """What one check found; ``remedy`` is a command, or what to write where."""

    outcome: Outcome
    found: str
    remedy: str | None = None


def ok(found: str, remedy: str | None = None) -> Finding:
    """Works; a ``remedy`` may still say how it would be better."""
    return Finding("ok", found, remedy)


def warning(found: str, remedy: str | None = None) -> Finding:
    """Works, but worse than it could."""
    return Finding("warning", found, remedy)


def failure(found: str, remedy: str | None = None) -> Finding:
    """Will not work."""
    return Finding("failure", found, remedy)


def not_applicable(found: str) -> Finding:
    """Nothing of it on this machine, or nothing that can be told."""
    return Finding("not applicable", found)


def memory_cgroup(root: Path) -> Finding:
    """Whether control groups can limit memory, which ``MemoryMax=`` of the service needs."""
    found = [group for group in groups(root, "self", "memory") if group.folder.is_dir()]
    if any(group.version == 1 for group in found):
        return ok("the memory controller is on (control groups v1)")
    outermost = next((group for group in reversed(found) if group.version == 2), None)
    controllers = read_text(outermost.folder / "cgroup.controllers") if outermost else None
    if controllers is None:
        return not_applicable("no control groups can be seen from here")
    if "memory" in controllers.split():
        return ok("the memory controller is on (control groups v2)")
    return warning(
        "the memory controller is off, so that memory limits of services have no effect",
        boot_parameter(root, "cgroup_enable=memory"),
    )


def pressure(root: Path, read: Callable[[Path], str] = Path.read_text) -> Finding:
    """Whether the kernel tells when memory gets short (PSI)."""
    path = root / "proc/pressure/memory"
    worse = "so that a shortage of memory is noticed later"
    try:
        text = read(path)
    except FileNotFoundError:
        return warning(
            f"the kernel does not measure pressure (no /proc/pressure/memory), {worse}",
            boot_parameter(root, "psi=1"),
        )
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return warning(
                f"the kernel can measure pressure, but it is switched off, {worse}",
                boot_parameter(root, "psi=1"),
            )
        return warning(f"/proc/pressure/memory cannot be read: {error.strerror}, {worse}")
    average = re.search(r"^some .*avg60=([\d.]+)", text, re.MULTILINE)
    stalled = f"{average[1]} % of the last minute waited for memory" if average else "it answers"
    return ok(f"the kernel measures pressure: {stalled}")


def boot_parameter(root: Path, parameter: str) -> str:
    """How to boot this machine with ``parameter``."""
    for name in ("boot/firmware/cmdline.txt", "boot/cmdline.txt"):
        text = read_text(root / name)
        if text is not None:
            return _of_a_pi(root, parameter, f"/{name}", text)
    if (root / "boot/extlinux/extlinux.conf").exists():
        where = "the APPEND line of /boot/extlinux/extlinux.conf"
    else:
        where = "GRUB_CMDLINE_LINUX in /etc/default/grub, run sudo update-grub"
    return f"add {parameter} to {where}, then: sudo reboot"


def _of_a_pi(root: Path, parameter: str, path: str, text: str) -> str:
    """The firmware reads the first line only."""
    lines = text.splitlines() or [""]
    if parameter in lines[0].split():
        if parameter in (read_text(root / "proc/cmdline") or "").split():
            return f"{parameter} is set already: this kernel does not have it; update the system"
        return f"{parameter} stands in {path} already: sudo reboot"
    if any(parameter in line.split() for line in lines[1:]):
        joined = rf"sudo sed -i -z 's/\n\(.\)/ \1/g' {path} && sudo reboot"
        return f"{parameter} counts only on the first line of {path}; make it all one: {joined}"
    return f"sudo sed -i '1 s/$/ {parameter}/' {path} && sudo reboot"


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex`` (linux/timex.h), and room for its rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def kernel_clock_is_synchronised() -> bool | None:
    """As ``adjtimex`` says; ``None`` where it may not be asked."""
    timex = _Timex(modes=0)  # only reads
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else not timex.status & _STA_UNSYNC


def clock(root: Path, now: datetime, *, synchronised: bool | None) -> Finding:
    """Whether the time is right: certificates and the times in replies depend on it."""
    said = now.strftime("%Y-%m-%d %H:%M %Z").rstrip()
    remedy = "sudo timedatectl set-ntp true, and see what timedatectl timesync-status says"
    if now.year < EARLIEST_YEAR:
        return failure(f"the clock says {said}, which cannot be: downloads will fail", remedy)
    if synchronised or (root / "run/systemd/timesync/synchronized").exists():
        return ok(f"synchronised, {said}")
    if synchronised is None:
        return not_applicable(f"whether the clock is synchronised cannot be told; it says {said}")
    return warning(f"the clock is not synchronised; it says {said}", remedy)


def swap(root: Path, ours_bytes: int) -> Finding:
    """``ours_bytes``: how much of edged's own memory lies in swap now."""
    areas = [line.split() for line in (read_text(root / "proc/swaps") or "").splitlines()[1:]]
    words = [f"{name} of {_mib(int(kib) * 1024)}" for name, _kind, kib, *_ in areas]
    said = ", ".join(words) or "none"
    if ours_bytes < _MIB:
        return ok(f"{said}; nothing of edged is in it")
    return warning(
        f"{_mib(ours_bytes)} of edged are in swap ({said}): every token waits for what was there",
        "choose what needs less memory (edged plan), or set MemorySwapMax=0 for the service",
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"
