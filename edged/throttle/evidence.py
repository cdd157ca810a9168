"""What readings prove by themselves, whatever the model says: a hysteresis on top of it."""

import math
from collections import deque
from enum import IntEnum
from statistics import median
from typing import Final

from edged.messages import Reading

RECENT: Final = 11
"""Readings whose median is believed,"""
DOUBT_SPREADS: Final = 0.7
"""beyond some of what readings are spread: noise of a degree must not count as heat."""
AGREED: Final = 2
"""So many readings in a row decide at once where it is urgent."""
BACK_BELOW_C: Final = 2.0
"""Below the limit by this much, the coolest operating point is left again."""
STOP_ABOVE_C: Final = 3.0
STOP_BACK_BELOW_C: Final = 3.0
END_BACK_BELOW_C: Final = 10.0
BELOW_CRITICAL_C: Final = 5.0
"""At its critical temperature the machine switches off; prompts end before that."""
NEAR_C: Final = 10.0
"""Firmware slows a machine for other reasons, too: for heat only so near to the limit."""
LEARNT_C: Final = 0.5
MOST_LEARNT_C: Final = 3.0
"""What the margin grows by each time that the firmware proves the limit to have been passed."""
FORGOTTEN_S: Final = 900.0
"""In which that shrinks to a third. What caused it may be over; if not, it is proved again."""


class Heat(IntEnum):
    """How bad it is."""

    FINE = 0
    OVER = 1
    """Above the limit: only the coolest operating point."""
    STOP = 2
    """Far above: nothing."""
    CRITICAL = 3
    """The machine is about to switch off."""


class Evidence:
    """Remembers the last readings of one sensor."""

    def __init__(self, critical_c: float | None) -> None:
        """``critical_c``: the profile's; a lower trip point counts instead."""
        self._critical_c = critical_c
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._was_slowed = False
        self._last_s: float | None = None
        self.heat = Heat.FINE
        self.learnt_c = 0.0
        """By how much the limit must be undercut for the firmware to keep quiet."""

    def weigh(self, reading: Reading, limit_c: float, spread_c: float = 0.0) -> Heat:
        """The state after this reading; without a temperature it stays what it was.

        ``spread_c`` is how far readings lie around what they should be, by experience.
        """
        temperature_c = reading.temperature_c
        is_slowed = reading.is_slowed and (
            temperature_c is None or temperature_c > limit_c - NEAR_C
        )
        self._forget(reading.monotonic_s)
        if is_slowed and not self._was_slowed:
            self.learnt_c = min(self.learnt_c + LEARNT_C, MOST_LEARNT_C)
        self._was_slowed = is_slowed
        if temperature_c is not None:
            self._recent.append(temperature_c)
            over_c = limit_c + DOUBT_SPREADS * spread_c
            self.heat = self._judge(limit_c, over_c, self._end_c(reading), is_slowed=is_slowed)
        elif is_slowed:
            self.heat = max(self.heat, Heat.OVER)
        return self.heat

    def _forget(self, now_s: float) -> None:
        took_s = 0.0 if self._last_s is None else max(now_s - self._last_s, 0.0)
        self._last_s = now_s
        self.learnt_c *= math.exp(-took_s / FORGOTTEN_S)

    def _end_c(self, reading: Reading) -> float | None:
        given = [each for each in (self._critical_c, reading.critical_c) if each is not None]
        return min(given) - BELOW_CRITICAL_C if given else None

    def _judge(
        self, limit_c: float, over_c: float, end_c: float | None, *, is_slowed: bool
    ) -> Heat:
        recent = list(self._recent)
        surely_c = min(recent[-AGREED:]) if len(recent) >= AGREED else -math.inf
        typically_c = median(recent)
        is_typical = len(recent) == RECENT and typically_c >= over_c
        # Each is entered at once and left where it has typically become cooler.
        states = (
            (Heat.CRITICAL, end_c is not None and surely_c >= end_c, END_BACK_BELOW_C),
            (Heat.STOP, surely_c >= limit_c + STOP_ABOVE_C, STOP_BACK_BELOW_C),
            (Heat.OVER, is_slowed or is_typical, BACK_BELOW_C),
        )
        for heat, is_so, back_below_c in states:
            stays = self.heat >= heat and typically_c > limit_c - back_below_c
            if is_so or stays:
                return heat
        return Heat.FINE
