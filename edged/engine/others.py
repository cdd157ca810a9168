"""How busy the machine is with others' work: what the worker's threads have to share."""

import os
import time
from pathlib import Path
from typing import Final

LOOK_S: Final = 1.0
"""How long is averaged over, at the least."""
REST_S: Final = 0.1
"""Between two steps of the same work less time passes than this; a look takes 0.1 ms."""
_IDLE_FIELDS: Final = (3, 4)
_GUEST_FIELDS: Final = slice(0, 8)
"""user, nice, system, idle, iowait, irq, softirq, steal of /proc/stat (proc(5)); guest times are
counted in user already. What a hypervisor steals is others' work, too."""


class OtherWork:
    """Cores that other processes, and the hypervisor, kept busy a moment ago."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._stat = root / "proc/stat"
        self._last: tuple[float, float, float] | None = None
        self._cores: float | None = None
        self._worked_s = 0.0

    def resume(self) -> None:
        """Work begins again; what others did while this process rested does not count."""
        now_s = time.monotonic()
        if self._last is None or now_s - self._worked_s < REST_S:
            return
        if now_s - self._last[0] > LOOK_S:
            self._last = self._look()

    def cores(self) -> float | None:
        """``None`` until it is known, and where the kernel does not tell."""
        self._worked_s = time.monotonic()
        if self._last is not None and self._worked_s - self._last[0] < LOOK_S:
            return self._cores
        seen = self._look()
        if seen is not None and self._last is not None:
            took_s, busy_s, own_s = (now - then for now, then in zip(seen, self._last, strict=True))
            self._cores = max(0.0, (busy_s - own_s) / took_s)
        self._last = seen
        return self._cores

    def _look(self) -> tuple[float, float, float] | None:
        """Seconds by the clock, and those of processors: all that were busy, and our own."""
        busy_s = self._busy_s()
        return None if busy_s is None else (time.monotonic(), busy_s, time.process_time())

    def _busy_s(self) -> float | None:
        """All processors' time that was not idle, since the machine's start."""
        try:
            first = self._stat.read_bytes().split(b"\n", 1)[0].split()[1:]
            ticks = [int(field) for field in first][_GUEST_FIELDS]
        except (OSError, ValueError):
            return None
        busy = sum(ticks) - sum(ticks[field] for field in _IDLE_FIELDS)
        return float(busy / os.sysconf("SC_CLK_TCK"))
