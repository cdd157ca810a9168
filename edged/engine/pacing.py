"""How hard the governor lets the worker work: threads, rests between steps, or nothing at all."""

import time

from edged.messages import Pace


class Pacing:
    """The last order, and the rest that the last step has earned."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._rested_s = 0.0

    def order(self, pace: Pace) -> None:
        """From the next step on. A rest that has begun is cut short where none is due any more."""
        self.pace = pace
        if min(pace.duty_decode, pace.duty_prefill) >= 1:
            self._rested_s = 0.0

    def stepped(self, took_s: float, *, is_reading: bool) -> None:
        """A step is over; the rest after it makes it the share of the time that is allowed."""
        duty = self.pace.duty_prefill if is_reading else self.pace.duty_decode
        self._rested_s = time.monotonic() + took_s * (1 - duty) / duty if duty < 1 else 0.0

    def threads(self, chosen: int, *, is_reading: bool) -> int:
        """No more than are allowed of what the engine has found best."""
        allowed = self.pace.threads_prefill if is_reading else self.pace.threads_decode
        return chosen if allowed is None else min(chosen, allowed)

    @property
    def rest_s(self) -> float:
        """How long to wait for the next step; 0 to go on at once."""
        return max(0.0, self._rested_s - time.monotonic()) if self._rested_s else 0.0
