"""How much memory is left, how hard it is to get, and what limits were met.

PSI is Documentation/accounting/psi.rst; the groups' files are in admin-guide/cgroup-v2.rst and
cgroup-v1/memory.rst. A Raspberry Pi has PSI and the memory controller only where its command
line switches them on; without, their files may be there and fail.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edged.errors import EdgedError
from edged.hardware.cgroups import Group, groups
from edged.hardware.memory import available
from edged.hardware.sensors_files import first_bytes, number
from edged.messages import MemoryReading

_LOOK_AGAIN_S: Final = 30.0
"""A process may be moved to another group."""
_SOME: Final = re.compile(rb"some avg10=(\d{1,3}(?:\.\d{1,6})?) ")


class MemorySensors:
    """Of the machine and the groups that ``pid`` is in."""

    def __init__(
        self,
        root: Path,
        pid: int | str,
        monotonic: Callable[[], float],
        is_told_of: Callable[[str], bool] = lambda _path: False,
    ) -> None:
        """``is_told_of`` says which files of pressure are not to be read."""
        self._root = root
        self._pid = pid
        self._monotonic = monotonic
        self._is_told_of = is_told_of
        self._looked_s = -math.inf
        self._groups: list[tuple[str, int]] = []

    def read(self, gpu_free_bytes: int | None = None) -> tuple[MemoryReading | None, str | None]:
        """What is known, and the fault where nothing is."""
        if self._monotonic() - self._looked_s >= _LOOK_AGAIN_S:
            self._looked_s = self._monotonic()
            self._groups = [(str(each.folder), each.version) for each in self._found()]
        try:
            left = available(self._root, self._pid)
        except EdgedError as error:
            return None, f"memory: {error}"
        except (ValueError, IndexError):
            return None, "memory: /proc/meminfo cannot be understood"
        return (
            MemoryReading(
                available_bytes=left.bytes,
                total_bytes=left.total_bytes,
                limited_by=left.limited_by,
                stalled_share=self._stalled_share(),
                limit_events=self._limit_events(),
                oom_kills=self._oom_kills(),
                gpu_free_bytes=gpu_free_bytes,
            ),
            None,
        )

    def _found(self) -> tuple[Group, ...]:
        try:
            return groups(self._root, self._pid, "memory")
        except ValueError:
            return ()

    def _stalled_share(self) -> float | None:
        """The worst of the machine's and the groups'."""
        paths = [str(self._root / "proc/pressure/memory")]
        paths += [f"{folder}/memory.pressure" for folder, version in self._groups if version == 2]
        matches = (_SOME.match(_bytes(path)) for path in paths if not self._is_told_of(path))
        shares = [float(match[1]) / 100 for match in matches if match]
        return min(max(shares), 1.0) if shares else None

    def _limit_events(self) -> int:
        """Of each group on our path its own limit's, where the kernel tells them apart (5.2)."""
        events = 0
        for folder, version in self._groups:
            if version == 2:
                told = _fields(f"{folder}/memory.events.local") or _fields(
                    f"{folder}/memory.events"
                )
                events += told.get(b"max", 0)
            else:
                failures = number(f"{folder}/memory.failcnt")
                events += 0 if isinstance(failures, str) else failures
        return events

    def _oom_kills(self) -> int:
        """Of our own group and those below: those above count strangers, too."""
        for folder, version in self._groups:
            told = _fields(f"{folder}/memory.{'events' if version == 2 else 'oom_control'}")
            if b"oom_kill" in told:
                return told[b"oom_kill"]
        return 0


def _bytes(path: str) -> bytes:
    """Empty where it is not there, or the kernel has it switched off (EOPNOTSUPP)."""
    try:
        return first_bytes(path)
    except (OSError, ValueError):
        return b""


def _fields(path: str) -> dict[bytes, int]:
    pairs = (line.split() for line in _bytes(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and _is_count(pair[1])}


def _is_count(word: bytes) -> bool:
    return word.isdigit() and len(word) < 19
