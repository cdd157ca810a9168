"""A clock for what rests on disk: it goes on over restarts and never jumps.

The wall clock may be stepped by hours (a board without a battery-backed clock wakes up in the
past), and the monotonic one begins anew with each boot. So the spool keeps its own: seconds of
``CLOCK_BOOTTIME`` while the machine is up, and for the time that it was off what the wall clock
says, if that went forward.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PLAUSIBLE_S = 1.6e9
"""In 2020. A wall clock before that has not been set yet, and says nothing of what has passed."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Mark:
    """One moment on all clocks, as it is kept; times in seconds."""

    spool_s: float
    boot_s: float
    wall_s: float
    boot_id: str


def boot_id(path: Path = _BOOT_ID) -> str:
    """What tells this boot from others; empty where the kernel does not say."""
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""


class SpoolClock:
    """Goes on from a mark of an earlier run."""

    def __init__(
        self,
        last: Mark | None,
        *,
        boot_s: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall_s: Callable[[], float] = time.time,
        this_boot: str | None = None,
    ) -> None:
        self._boot_s, self._wall_s = boot_s, wall_s
        self._boot_id = boot_id() if this_boot is None else this_boot
        self._offset_s = -boot_s()
        if last is not None:
            if last.boot_id and last.boot_id == self._boot_id:
                passed_s = boot_s() - last.boot_s
            else:
                passed_s = wall_s() - last.wall_s if last.wall_s > PLAUSIBLE_S else 0.0
            self._offset_s += last.spool_s + max(0.0, passed_s)

    def now_s(self) -> float:
        """Seconds since the spool was made."""
        return self._boot_s() + self._offset_s

    def mark(self) -> Mark:
        """What to keep of the moment."""
        return Mark(self.now_s(), self._boot_s(), self._wall_s(), self._boot_id)
