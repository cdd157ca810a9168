"""Whether a sensor can be believed: pure, on what was read, when, and how long it took.

Sensors of boards are known to answer -256 or 0 °C for a moment, to go on saying the same, to
answer with nothing, or after seconds. Whoever acts on them must know that from a temperature.
"""

from dataclasses import dataclass
from typing import Final

JUMP_K: Final = 20.0
"""No chip with a heat spreader changes by so much between two readings half a second apart."""
AGREEING: Final = 3
AGREE_WITHIN_K: Final = 5.0
"""After a jump, so many readings in a row that differ by no more than this are believed."""
STUCK_AFTER_S: Final = 60.0
MOVED_BY_W: Final = 1.0
MOVED_FOR_S: Final = 30.0
"""A sensor in rounded degrees may repeat itself for long; it sticks where the board's power has
changed by so much, and has stayed changed for so long, without a trace in it."""
SLOW_S: Final = 0.2
SLOW_IN_A_ROW: Final = 3
SLOW_EVERY_S: Final = 30.0
"""A sensor that was slow so often is read only so often."""
NAMED_FOR_S: Final = 10.0
"""A fault stays named for so long after it was last seen, and its text as it is: who shows
faults as they change is not to be told something new twice a second."""


@dataclass(frozen=True)
class Kind:
    """What a sensor measures, and what it can be at all."""

    unit: str
    low: float
    high: float
    is_temperature: bool = False
    """It cannot jump, follows the power, and exactly 0 is a sensor that is not connected."""


TEMPERATURE: Final = Kind("°C", -40.0, 150.0, is_temperature=True)
FAN: Final = Kind("rpm", 0, 100_000)
POWER: Final = Kind("W", 0, 100_000)
CLOCK: Final = Kind("MHz", 1, 20_000)
COUNT: Final = Kind("events", 0, 2**63)
STEP: Final = Kind("steps", 0, 1000)
BITS: Final = Kind("", 0, 2**32 - 1)

_Odd = tuple[str, str]
"""What kind of fault it is, and its text with the value at hand."""


class Plausible:
    """Watches one sensor; ``name`` stands before its fault's text."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.last: float | None = None
        """What was believed last."""
        self._kind = kind
        self._agreeing: list[float] = []
        self._slow = 0
        self._read_s = 0.0
        self._held: float | None = None
        self._held_s = 0.0
        self._held_w: float | None = None
        self._moved_s: float | None = None
        self._is_stuck = False
        self._odd: _Odd | None = None
        self._named_s = 0.0
        self._seen_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Whether to read it now: always, unless it has been slow."""
        return self._slow < SLOW_IN_A_ROW or now_s - self._read_s >= SLOW_EVERY_S

    def weigh(
        self, raw: float | str, now_s: float, took_s: float = 0.0, watts: float | None = None
    ) -> float | None:
        """What of a reading can be believed, ``None`` if nothing.

        ``raw`` is a number, or in words why there is none; ``watts`` is what the board is
        reckoned to draw.
        """
        self._read_s = now_s
        value, odd = self._judged(raw, now_s, watts)
        if took_s > SLOW_S:
            self._slow += 1
            odd = odd or ("slow", f"took {took_s * 1000:.0f} ms to read")
        else:
            self._slow = 0
        self._note(odd, now_s)
        return value

    def fault(self, now_s: float) -> str | None:
        """What is or was just now wrong, in words that stay as long as it does."""
        is_over = self._slow < SLOW_IN_A_ROW and now_s - self._seen_s >= NAMED_FOR_S
        return None if self._odd is None or is_over else f"{self.name}: {self._odd[1]}"

    def _judged(
        self, raw: float | str, now_s: float, watts: float | None
    ) -> tuple[float | None, _Odd | None]:
        if isinstance(raw, str):
            self._agreeing.clear()
            return None, (raw, raw)
        unit = self._kind.unit
        if not self._can_be(raw):
            self._agreeing.clear()
            return None, ("impossible", f"reads {raw:g} {unit}, which cannot be")
        if self._kind.is_temperature:
            if self._sticks(raw, now_s, watts):
                text = f"stuck at {raw:g} {unit} although the board's power has changed"
                return None, ("stuck", text)
            if self._jumps(raw):
                return None, ("jump", f"jumped from {self.last:g} to {raw:g} {unit}")
        self._agreeing.clear()
        self.last = raw
        return raw, None

    def _can_be(self, raw: float) -> bool:
        if not self._kind.low <= raw <= self._kind.high:
            return False
        if not self._kind.is_temperature or raw != 0:
            return True
        return self.last is not None and abs(self.last) <= JUMP_K

    def _jumps(self, raw: float) -> bool:
        if self.last is None or abs(raw - self.last) <= JUMP_K:
            return False
        together = [*self._agreeing, raw]
        if max(together) - min(together) > AGREE_WITHIN_K:
            together = [raw]
        self._agreeing = together
        return len(together) < AGREEING

    def _sticks(self, raw: float, now_s: float, watts: float | None) -> bool:
        """Once found so, it stays so until it says anything else."""
        if raw != self._held:
            self._held, self._held_s, self._held_w = raw, now_s, watts
            self._moved_s, self._is_stuck = None, False
        elif self._held_w is None:
            self._held_w = watts
        elif watts is None or abs(watts - self._held_w) < MOVED_BY_W:
            self._moved_s = None
        elif self._moved_s is None:
            self._moved_s = now_s
        elif now_s - self._moved_s >= MOVED_FOR_S and now_s - self._held_s >= STUCK_AFTER_S:
            self._is_stuck = True
        return self._is_stuck

    def _note(self, odd: _Odd | None, now_s: float) -> None:
        if odd is None:
            return
        is_named = self.fault(now_s) is not None
        is_same = self._odd is not None and self._odd[0] == odd[0]
        if not is_named or (not is_same and now_s - self._named_s >= NAMED_FOR_S):
            self._odd, self._named_s = odd, now_s
        self._seen_s = now_s
