"""Headroom for bursts: how far below the limit answering stays, so that reading can sprint.

Who speaks to a voice assistant waits for the first token, which is as fast as the prompt is read.
So while prompts come and go, answers are decoded a little cooler, by what reading the next prompt
at full speed will add. Under a load without pauses there is nothing to keep it for.
"""

from typing import Final

FIRST_READ_S: Final = 4.0
MOST_READ_S: Final = 10.0
READ_SHARE: Final = 0.3
"""How much of the estimate a new prompt moves."""
OCCUPANCY_S: Final = 300.0
"""How far it looks back; what was before it was there counts neither as busy nor as idle."""
BUSY: Final = 0.9
"""Share of the time with something to do, from which on no pauses are expected."""
IDLE: Final = 0.6


class Headroom:
    """Learns how long prompts are read, and how often there is nothing to do."""

    def __init__(self) -> None:
        self._occupancy = 0.0
        self._seen_s = 0.0
        self._read_s = FIRST_READ_S
        self._reading_s = 0.0

    @property
    def read_s(self) -> float:
        """How long the next prompt will be read."""
        return self._read_s

    @property
    def reading_s(self) -> float:
        """For how long prompts have been read by now."""
        return self._reading_s

    @property
    def share(self) -> float:
        """How much of the headroom to keep, from 0 to 1."""
        return min(max((BUSY - self._occupancy) / (BUSY - IDLE), 0.0), 1.0)

    def update(self, took_s: float, *, is_reading: bool, is_idle: bool) -> None:
        """What was asked of the worker in the last ``took_s``."""
        self._seen_s = min(self._seen_s + took_s, OCCUPANCY_S)
        newest = min(took_s / self._seen_s, 1.0) if self._seen_s else 0.0
        self._occupancy += newest * ((0.0 if is_idle else 1.0) - self._occupancy)
        if is_reading:
            self._reading_s += took_s
        elif self._reading_s:
            longest_s = min(self._reading_s, MOST_READ_S)
            self._read_s += READ_SHARE * (longest_s - self._read_s)
            self._reading_s = 0.0
