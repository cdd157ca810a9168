"""How little memory is too little, and how soon it will be.

A load may fill a board, or its control group, nearly to the rim: it was admitted, and nobody
else has taken anything. So where a model left little when it had been loaded, the marks lie
lower, in proportion to what is usual since then.
"""

from dataclasses import dataclass
from typing import Final

MIB: Final = 2**20

LOW_SHARE: Final = 0.06
LOW_LEAST_BYTES: Final = 128 * MIB
LOW_MOST_BYTES: Final = 512 * MIB
"""The first mark, as a share of MemTotal. It is capped because a control group may be much
smaller than that."""
CRITICAL_SHARE: Final = 0.02
CRITICAL_LEAST_BYTES: Final = 48 * MIB
CRITICAL_MOST_BYTES: Final = 96 * MIB
"""The last: below it the kernel may soon end somebody."""
USUAL_TIMES_LOW: Final = 2.0
"""The first mark is at most half of what is usual."""
TIGHT_LOW_BYTES: Final = 32 * MIB
TIGHT_CRITICAL_BYTES: Final = 16 * MIB
"""However tight it is; at 2 Hz, less would be passed unseen. Assumed, as all of these are."""

AT_ONCE_S: Final = 1.0
"""How far ahead one fall between two readings is believed to go on: until the next reading, and
as long as ending a worker takes."""
SUSTAINED_S: Final = 2.0
"""The same of a fall that has gone on over two intervals, at the slower of both."""
SHORTEST_S: Final = 0.1
"""Readings that follow each other sooner say nothing of a rate."""


@dataclass(frozen=True)
class Marks:
    """Steps 1 to ``count`` have marks at equal distances, from low down to critical."""

    low_bytes: int
    critical_bytes: int
    count: int

    def of(self, step: int) -> int:
        """Below this many bytes the step is called for."""
        return self.low_bytes - (step - 1) * self.distance_bytes

    @property
    def distance_bytes(self) -> int:
        """Between two neighbours."""
        return (self.low_bytes - self.critical_bytes) // (self.count - 1)

    def called(self, available_bytes: int) -> int:
        """The highest step whose mark is not reached; 0 for none."""
        return sum(available_bytes < self.of(step) for step in range(1, self.count + 1))


def marks(total_bytes: int, usual_bytes: int | None, count: int) -> Marks:
    """``usual_bytes`` is the most that was available since the model was loaded, if one was."""
    low = min(max(LOW_SHARE * total_bytes, LOW_LEAST_BYTES), LOW_MOST_BYTES)
    critical = min(max(CRITICAL_SHARE * total_bytes, CRITICAL_LEAST_BYTES), CRITICAL_MOST_BYTES)
    scale = 1.0 if usual_bytes is None else min(1.0, usual_bytes / (USUAL_TIMES_LOW * low))
    return Marks(
        low_bytes=int(max(scale * low, TIGHT_LOW_BYTES)),
        critical_bytes=int(max(scale * critical, TIGHT_CRITICAL_BYTES)),
        count=count,
    )


class Fall:
    """Remembers how fast the available memory has been falling."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._limited_by = ""
        self._rates = (0.0, 0.0)

    @property
    def bytes_per_s(self) -> float:
        """Over the last interval; negative where memory came back."""
        return self._rates[-1]

    def ahead(self, now_s: float, available_bytes: int, limited_by: str = "") -> int:
        """Take a reading; what will be left soon if it goes on like this.

        Where another limit has become the nearest, or was just set, it goes on as before.
        """
        if self._last is None:
            self._last = now_s, available_bytes
        last_s, last_bytes = self._last
        took_s = now_s - last_s
        if took_s >= SHORTEST_S:
            rate = (last_bytes - available_bytes) / took_s
            if limited_by != self._limited_by:
                rate = self._rates[-1]
            self._rates = self._rates[-1], rate
            self._last = now_s, available_bytes
        self._limited_by = limited_by
        falls = (0.0, self._rates[-1] * AT_ONCE_S, min(self._rates) * SUSTAINED_S)
        return available_bytes - int(max(falls))

    def forget(self) -> None:
        """What was read is not to be compared with what comes."""
        self._last, self._rates = None, (0.0, 0.0)
