"""How much memory a load may take now: not what the board has, but what is left of it.

The least of the kernel's own estimate (MemAvailable) and of what every control group from
ours upwards leaves. Swap does not count: decoding reads every weight for every token, so
weights in swap would be read from an SD card each time.
"""

from dataclasses import dataclass
from pathlib import Path

from edged.errors import EdgedError
from edged.hardware.cgroups import Group, groups, read_text

_KIB = 1024


@dataclass(frozen=True)
class Available:
    """``limited_by`` says in words whose limit it is."""

    bytes: int
    limited_by: str
    total_bytes: int
    """MemTotal."""


def available(root: Path = Path("/"), pid: int | str = "self") -> Available:
    """What ``pid`` (or a child of it) may still take; ``root`` stands for ``/``.

    Groups that cannot be read limit nothing. Raises ``EdgedError`` without /proc/meminfo.
    """
    system = meminfo_bytes(root)
    left = [(system["MemAvailable"], "MemAvailable")]
    for group in groups(root, pid, "memory"):
        left += _left_v2(group) if group.version == 2 else _left_v1(group)
    smallest, limited_by = min(left, key=lambda each: each[0])
    return Available(max(smallest, 0), limited_by, system["MemTotal"])


def status_bytes(pid: int, *names: str, root: Path = Path("/")) -> int:
    """The sum of some of ``/proc/PID/status``'s sizes, such as ``RssAnon``; 0 when it is gone."""
    lines = (read_text(root / f"proc/{pid}/status") or "").splitlines()
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return sum(int(field[1]) * _KIB for field in fields if field[0].rstrip(":") in names)


def meminfo_bytes(root: Path = Path("/")) -> dict[str, int]:
    """``MemTotal`` and ``MemAvailable``, in bytes. Raises ``EdgedError`` if they are not there."""
    path = root / "proc/meminfo"
    found = {}
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(value.split()[0]) * _KIB
    if len(found) < 2:
        raise EdgedError(f"{path} does not say how much memory there is; is /proc mounted?")
    return found


def _left_v2(group: Group) -> list[tuple[int, str]]:
    """Below memory.max, and below memory.high, above which the kernel stalls the group."""
    usage = _number(group.folder / "memory.current")
    if usage is None:  # the root of the hierarchy has no usage and no limit
        return []
    stat = _stat(group.folder)
    # Half of the slabs, as the kernel has it in MemAvailable: objects in use pin others.
    reclaimable = _file_cache(stat, "", "file_") + stat.get("slab_reclaimable", 0) // 2
    return [
        (limit - (usage - reclaimable), f"{file} of {group.name}")
        for file in ("memory.max", "memory.high")
        if (limit := _number(group.folder / file)) is not None
    ]


def _left_v1(group: Group) -> list[tuple[int, str]]:
    """Below its own limit, or one of a group above it that a container does not see."""
    usage = _number(group.folder / "memory.usage_in_bytes")
    if usage is None:
        return []
    stat = _stat(group.folder)
    reclaimable = _file_cache(stat, "total_", "total_")
    own = _number(group.folder / "memory.limit_in_bytes")
    limits = (
        (own, f"memory.limit_in_bytes of {group.name}"),
        (stat.get("hierarchical_memory_limit"), f"a memory limit on {group.name} from above"),
    )
    # A limit that was never set is a number next to 2**63.
    return [(limit - (usage - reclaimable), name) for limit, name in limits if limit is not None]


def _file_cache(stat: dict[str, int], lru: str, unwritten: str) -> int:
    """Bytes of file pages that can be dropped at once.

    The two lists hold no shared memory (it counts as anonymous) and no locked pages; what
    is still to be written must be written first.
    """
    pages = stat.get(f"{lru}inactive_file", 0) + stat.get(f"{lru}active_file", 0)
    dirty = stat.get(f"{unwritten}dirty", 0) + stat.get(f"{unwritten}writeback", 0)
    return max(pages - dirty, 0)


def _number(path: Path) -> int | None:
    """``None`` where there is no file, no permission or no limit ("max")."""
    text = (read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None


def _stat(folder: Path) -> dict[str, int]:
    pairs = (line.split() for line in (read_text(folder / "memory.stat") or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
