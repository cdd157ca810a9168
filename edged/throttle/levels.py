"""The level that people read: at once when it gets worse, after a while when it gets better."""

import math
from typing import Final

from edged.messages import Level

ORDER: Final[tuple[Level, ...]] = ("nominal", "trimmed", "throttled", "paused")
TRIMMED_SPEED: Final = 0.97
THROTTLED_SPEED: Final = 0.7
"""Relative to the fastest; above the first it is nominal, below the second throttled."""
SMOOTHED_S: Final = 5.0
"""A pace alternates between neighbouring operating points; what counts is their mean."""
BETTER_S: Final = 15.0
"""How long it must have been better to be called so."""


class Levels:
    """One level, and since when."""

    def __init__(self) -> None:
        self.level: Level = "nominal"
        self.since_s = 0.0
        self._speed = 1.0
        self._better_since_s: float | None = None

    def update(self, now_s: float, took_s: float, speed: float) -> Level:
        """``speed`` is that of the pace, relative to the fastest; 0 is paused."""
        share = 1 - math.exp(-took_s / SMOOTHED_S)
        self._speed += share * (speed - self._speed)
        level = _level(self._speed if speed else 0.0)
        rank, now_rank = ORDER.index(level), ORDER.index(self.level)
        if rank >= now_rank:
            self._better_since_s = None
        elif self._better_since_s is None:
            self._better_since_s = now_s
        is_proven = self._better_since_s is not None and now_s - self._better_since_s >= BETTER_S
        if rank > now_rank or (rank < now_rank and is_proven):
            self.level, self.since_s, self._better_since_s = level, now_s, None
        return self.level


def _level(speed: float) -> Level:
    if speed <= 0:
        return "paused"
    if speed < THROTTLED_SPEED:
        return "throttled"
    return "trimmed" if speed < TRIMMED_SPEED else "nominal"
