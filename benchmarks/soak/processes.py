"""What the daemon and every process below it hold, read from /proc."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from edged.hardware.memory import status_bytes

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process at one moment; ``cpu_s`` since it began."""

    name: str
    pid: int
    resident_bytes: int
    anonymous_bytes: int
    proportional_bytes: int
    """Its share of pages that others have, too, counted by how many have them (PSS)."""
    descriptors: int
    threads: int
    cpu_s: float


def processes(daemon_pid: int) -> dict[str, Process]:
    """The daemon and its descendants by name; one that ends at this moment may be left out."""
    found: dict[str, Process] = {}
    pending = [(daemon_pid, "daemon")]
    while pending:
        pid, name = pending.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[name] = _process(pid, name)
            for child in _children(pid):
                module = _module(child)
                pending.append((child, module if module not in found else f"{module} {child}"))
    return found


def _process(pid: int, name: str) -> Process:
    folder = _PROC / str(pid)
    # Behind the name in parentheses, which may hold spaces; proc(5) counts from 1, state being 3.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    user, system, threads = (int(fields[at - 3]) for at in (14, 15, 20))
    return Process(
        name=name,
        pid=pid,
        resident_bytes=status_bytes(pid, "VmRSS"),
        anonymous_bytes=status_bytes(pid, "RssAnon"),
        proportional_bytes=_proportional_bytes(folder),
        descriptors=len(list((folder / "fd").iterdir())),
        threads=threads,
        cpu_s=(user + system) / _TICKS_PER_S,
    )


def _proportional_bytes(folder: Path) -> int:
    for line in (folder / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _children(pid: int) -> list[int]:
    """Of all threads, since any of them can have started one."""
    tasks = (_PROC / str(pid) / "task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _module(pid: int) -> str:
    """The last part of the module's name that a Python process runs."""
    arguments = (_PROC / str(pid) / "cmdline").read_text().split("\0")
    return arguments[arguments.index("-m") + 1].rpartition(".")[2]
