"""How busy the machine is with others' work: what the worker's threads have to share."""

import os
import time
from pathlib import Path
from typing import Final

LOOK_S: Final = 1.0
"""How long is averaged over, at the least."""
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

    def cores(self) -> float | None:
        """``None`` until it is known, and where the kernel does not tell."""
        now_s = time.monotonic()
        if self._last is not None and now_s - self._last[0] < LOOK_S:
            return self._cores
        busy_s, own_s = self._busy_s(), time.process_time()
        if busy_s is None:
            return None
        if self._last is not None:
            then_s, busy_before_s, own_before_s = self._last
            others_s = (busy_s - busy_before_s) - (own_s - own_before_s)
            self._cores = max(0.0, others_s / (now_s - then_s))
        self._last = now_s, busy_s, own_s
        return self._cores

    def _busy_s(self) -> float | None:
        """All processors' time that was not idle, since the machine's start."""
        try:
            first = self._stat.read_bytes().split(b"\n", 1)[0].split()[1:]
            ticks = [int(field) for field in first][_GUEST_FIELDS]
        except (OSError, ValueError):
            return None
        busy = sum(ticks) - sum(ticks[field] for field in _IDLE_FIELDS)
        return float(busy / os.sysconf("SC_CLK_TCK"))
