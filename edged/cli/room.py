"""What a model could have of the memory once the running daemon's worker has given back its own."""

from dataclasses import dataclass
from pathlib import Path

from edged.engine.planning import right_now
from edged.hardware.cgroups import read_text
from edged.hardware.memory import Available, available, status_bytes
from edged.models.plan import Machine, mib


@dataclass(frozen=True)
class Daemon:
    """The daemon that uses our state folder; ``None`` and zeros where none does."""

    pid: int | None = None
    workers: int = 0
    held_bytes: int = 0
    """What its worker would give back; pages of a mapped file count as available already."""
    swapped_bytes: int = 0


def daemon_of(root: Path, pid: int | None) -> Daemon:
    """What the process ``pid`` and its workers hold; ``root`` stands for ``/``."""
    if pid is None:
        return Daemon()
    tasks = (root / f"proc/{pid}/task").glob("*/children")
    workers = [int(each) for path in tasks for each in (read_text(path) or "").split()]
    return Daemon(
        pid,
        len(workers),
        sum(status_bytes(each, "RssAnon", "RssShmem", root=root) for each in workers),
        sum(status_bytes(each, "VmSwap", root=root) for each in (pid, *workers)),
    )


def room(machine: Machine, daemon: Daemon) -> tuple[Machine, str]:
    """What a worker could have now; what a running one holds is not lost to the next."""
    if not daemon.workers:
        return right_now(machine), ""
    if machine.gpu_bytes_per_s:
        # What the worker holds on a GPU cannot be told apart from what others do.
        return machine, " when the running daemon's worker has ended"
    seen = available(pid=daemon.pid or "self")
    now = Available(seen.bytes + daemon.held_bytes, seen.limited_by, seen.total_bytes)
    said = f", with the {mib(daemon.held_bytes)} that the running daemon's worker holds"
    return right_now(machine, now), said
