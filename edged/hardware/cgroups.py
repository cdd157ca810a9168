"""Which control groups a process is in, as folders to read, cgroup v1, v2 and both at once.

``/proc/PID/cgroup`` gives a path in the hierarchy, ``/proc/PID/mountinfo`` where which part
of the hierarchy is mounted. In a container the two may disagree: the path is the host's,
and what is mounted is the container's own group.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

Version = Literal[1, 2]


@dataclass(frozen=True)
class Group:
    """One control group; where a container hides it, ``folder`` does not exist."""

    name: str
    """Its path in the hierarchy, as ``systemd-cgls`` shows it."""
    folder: Path
    version: Version


@dataclass(frozen=True)
class _Mount:
    version: Version
    controllers: frozenset[str]
    root: PurePosixPath
    """The part of the hierarchy that is mounted."""
    folder: Path


def groups(root: Path, pid: int | str, controller: str) -> tuple[Group, ...]:
    """The groups of ``pid`` that may limit ``controller``, each innermost first.

    ``root`` stands for ``/``. Empty where there is none, or nothing can be read.
    """
    proc = root / "proc" / str(pid)
    mounts = tuple(_mounts(read_text(proc / "mountinfo") or "", root))
    found: list[Group] = []
    for line in (read_text(proc / "cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        candidates = [
            mount
            for mount in mounts
            if (controller in mount.controllers if controllers else mount.version == 2)
        ]
        found += _upwards(PurePosixPath(path), candidates)
    return tuple(dict.fromkeys(found))


def read_text(path: Path) -> str | None:
    """What a file of /proc or /sys says; ``None`` if it is not there or does not answer."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return None


def _mounts(mountinfo: str, root: Path) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        part, folder = map(_unescaped, fields[3:5])
        yield _Mount(
            version=2 if kind[0] == "cgroup2" else 1,
            controllers=frozenset(kind[2].split(",")),
            root=PurePosixPath(part),
            folder=root / folder.lstrip("/"),
        )


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _upwards(path: PurePosixPath, mounts: list[_Mount]) -> list[Group]:
    """The group at ``path`` and those above it, as far as they are mounted."""
    for mount in mounts:
        if ".." not in path.parts and path.is_relative_to(mount.root):
            inner = path.relative_to(mount.root)
            return [
                Group(str(mount.root / each), mount.folder / each, mount.version)
                for each in (inner, *inner.parents)
            ]
    # The path is one of another namespace; what is mounted is then our own group.
    return [Group(str(mount.root), mount.folder, mount.version) for mount in mounts[:1]]
