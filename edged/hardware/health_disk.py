"""Whether there is room to write, and whether it stays: free space, read-only, in memory."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.hardware.cgroups import read_text
from edged.hardware.health import Finding, failure, ok, warning

FULL_BYTES: Final = 16 * 2**20
"""Less than this, and state cannot be written for long."""
LITTLE_BYTES: Final = 256 * 2**20
MODEL_BYTES: Final = 2_400_000_000
"""About Phi-3-mini in Q4_K_M, the middle of the catalogue."""
_IN_MEMORY: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Disk:
    """The filesystem that holds a folder, or would once it is made."""

    path: Path
    free_bytes: int
    is_read_only: bool
    kind: str
    """As mount calls it: ext4, tmpfs, …"""
    source: str
    """What is mounted: /dev/mmcblk0p2, …"""


def disk_of(path: Path, root: Path) -> Disk:
    """Raises ``OSError`` where nothing of the way to ``path`` can be looked at."""
    there = nearest(path)
    status = os.statvfs(there)
    kind, source = _mount(there.resolve(), read_text(root / "proc/self/mountinfo") or "")
    return Disk(
        path,
        status.f_bavail * status.f_frsize,
        bool(status.f_flag & os.ST_RDONLY),
        kind,
        source,
    )


def nearest(path: Path) -> Path:
    """``path``, or the folder above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def state_disk(disk: Disk) -> Finding:
    """Judge the disk of the state folder."""
    said = f"{disk.path}: {_size(disk.free_bytes)} free{_card(disk)}"
    if disk.is_read_only:
        return failure(
            f"{disk.path} is on a disk that is mounted read-only; a damaged one becomes so",
            f"see dmesg, then: sudo mount -o remount,rw {disk.path}",
        )
    if disk.free_bytes < FULL_BYTES:
        return failure(said, "make room: sudo apt clean; sudo journalctl --vacuum-size=100M")
    if disk.kind in _IN_MEMORY:
        return warning(
            f"{disk.path} is in memory ({disk.kind}): what is chosen is lost at each boot",
            "set state_dir to a folder on a disk, such as /var/lib/edged",
        )
    if disk.free_bytes < LITTLE_BYTES:
        return warning(said, "make room: sudo apt clean; sudo journalctl --vacuum-size=100M")
    return ok(said)


def store_disk(disk: Disk, *, has_models: bool) -> Finding:
    """Judge the disk of the store; one without room matters only where there is no model yet."""
    said = f"{disk.path}: {_size(disk.free_bytes)} free{_card(disk)}"
    if disk.kind in _IN_MEMORY:
        return warning(
            f"{disk.path} is in memory ({disk.kind}): models take it up, and are lost at each boot",
            "set model.store to a folder on a disk, such as /var/cache/edged/models",
        )
    if disk.is_read_only and not has_models:
        return warning(
            f"{disk.path} is on a disk that is mounted read-only: nothing can be pulled",
            "set model.store to a folder on another disk",
        )
    if disk.free_bytes < MODEL_BYTES and not has_models:
        return warning(
            f"{said}; a model such as Phi-3-mini needs {_size(MODEL_BYTES)}",
            "make room, or set model.store to a folder on another disk",
        )
    return ok(said)


def _card(disk: Disk) -> str:
    return ", on a memory card or eMMC" if disk.source.startswith("/dev/mmcblk") else ""


def _mount(path: Path, mountinfo: str) -> tuple[str, str]:
    """Kind and source of the mount that holds ``path``: the deepest, and of those the last."""
    best, found = -1, ("unknown", "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 2:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), (kind[0], kind[1])
    return found


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes >> 20} MiB"
