"""What a budget of watts buys: threads, clock and rests for the most tokens a second.

Decoding waits for memory, reading a prompt for arithmetic; so a lower clock costs decoding little
and is taken first where it may be set. Power of the cores above idle goes with the cube of the
clock, decoding with its 0.3rd power, reading in proportion (assumed of a Pi 5 until they are
measured on a board). Rests are the last resort: they save what working draws above idle.
"""

from dataclasses import dataclass
from typing import Final, Literal

from edged.hardware.board import Board

Phase = Literal["decode", "prefill"]

POWER_EXPONENT: Final = 3.0
DECODE_EXPONENT: Final = 0.3
CLOCK_STEP_MHZ: Final = 100
LEAST_DUTY: Final = 0.1
"""Below it steps would come too seldom to be called working."""


@dataclass(frozen=True)
class Operation:
    """A way to work: a share ``duty`` of the time with so many threads at this clock.

    ``mhz`` is ``None`` where the clock is not ours to set; ``speed`` is relative to the fastest.
    """

    threads: int
    mhz: int | None
    duty: float
    watts: float
    speed: float


class Operations:
    """All operating points of a board, by what they draw and do."""

    def __init__(self, board: Board, *, has_clock: bool) -> None:
        self.idle_w = next((each.watts for each in board.points if each.threads == 0), 0.0)
        found: dict[Phase, list[Operation]] = {"decode": [], "prefill": []}
        for point in (each for each in board.points if each.threads > 0):
            for mhz in _clocks(board) if has_clock else (None,):
                share = 1.0 if mhz is None else mhz / _clocks(board)[-1]
                watts = self.idle_w + (point.watts - self.idle_w) * share**POWER_EXPONENT
                decode, prefill = point.decode * share**DECODE_EXPONENT, point.prefill * share
                found["decode"].append(Operation(point.threads, mhz, 1.0, watts, decode))
                found["prefill"].append(Operation(point.threads, mhz, 1.0, watts, prefill))
        self._at = {phase: _front(operations) for phase, operations in found.items()}

    def best(self, phase: Phase, budget_w: float, max_mhz: int | None = None) -> Operation | None:
        """The fastest that draws no more than the budget on average, at no higher clock.

        ``None`` where the budget is too small for any.
        """
        best: Operation | None = None
        for each in self._at[phase]:
            if max_mhz is not None and each.mhz is not None and each.mhz > max_mhz:
                continue
            above_w = each.watts - self.idle_w
            duty = 1.0 if each.watts <= budget_w else (budget_w - self.idle_w) / above_w
            if duty >= LEAST_DUTY and (best is None or each.speed * duty > best.speed):
                watts = self.idle_w + duty * above_w
                best = Operation(each.threads, each.mhz, duty, watts, each.speed * duty)
        return best

    def fastest(self, phase: Phase) -> Operation:
        """Without any limit."""
        return self._at[phase][-1]

    def coolest(self, phase: Phase) -> Operation:
        """What draws least without resting."""
        return self._at[phase][0]


def _clocks(board: Board) -> tuple[int, ...]:
    """In MHz, rising; the highest is the board's own."""
    if board.min_mhz is None or board.max_mhz is None:
        return ()
    return (*range(board.min_mhz, board.max_mhz, CLOCK_STEP_MHZ), board.max_mhz)


def _front(operations: list[Operation]) -> list[Operation]:
    """Those that are faster than all that draw as little, by rising watts."""
    front: list[Operation] = []
    for each in sorted(operations, key=lambda each: (each.watts, -each.speed)):
        if not front or each.speed > front[-1].speed:
            front.append(each)
    return front
