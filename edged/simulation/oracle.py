"""The best that constant operation can do: it knows the true board and the air around it.

In steady state T = T_air + P · R, so the watts that end at the limit are (limit - T_air) / R. What
they buy is read off the upper concave hull of (watts, speed) over clocks, threads and rests: any
point on it can be had by taking turns between its two neighbours.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, Literal

from edged.hardware.twin import FAN_TRIPS_C, TwinBoard
from edged.simulation.worker import Flow

Phase = Literal["decode", "prefill"]

_CLOCK_STEP_MHZ: Final = 10


class Oracle:
    """Of one board; ``has_clock``: the cap on the clock may be set."""

    def __init__(self, board: TwinBoard, *, has_clock: bool) -> None:
        self._board = board
        flows = list(_flows(board, has_clock=has_clock))
        self._hulls = {
            "decode": _hull(flows, "decode"),
            "prefill": _hull(flows, "prefill"),
        }

    def sustainable_w(self, ambient_c: float) -> float:
        """The constant watts that end at the limit."""
        return (self._board.soft_c - ambient_c) / resistance_at_limit(self._board)

    def best(self, phase: Phase, watts: float) -> Flow:
        """The fastest way to work that draws so much on average, or less."""
        hull = self._hulls[phase]
        above = bisect_right(hull, watts, key=lambda flow: flow.watts)
        if above in (0, len(hull)):
            return hull[max(above - 1, 0)]
        low, high = hull[above - 1], hull[above]
        share = (watts - low.watts) / (high.watts - low.watts)
        return Flow(
            watts,
            low.decode + share * (high.decode - low.decode),
            low.prefill + share * (high.prefill - low.prefill),
        )


def resistance_at_limit(board: TwinBoard) -> float:
    """Kelvin a watt from the chip to the air, with the fan as it turns at the limit."""
    *inner, outer = (stage.r_k_per_w for stage in board.stages)
    scale = 1.0
    if board.fan_scales is not None:
        scale = board.fan_scales[sum(1 for trip_c in FAN_TRIPS_C if trip_c <= board.soft_c)]
    return sum(inner) + outer * scale


def _flows(board: TwinBoard, *, has_clock: bool) -> Iterator[Flow]:
    clocks = range(board.min_mhz, board.max_mhz, _CLOCK_STEP_MHZ) if has_clock else ()
    yield Flow(board.idle_w, 0.0, 0.0)
    for point in board.points[1:]:
        for mhz in (*clocks, board.max_mhz):
            share = mhz / board.max_mhz
            yield Flow(
                board.idle_w + (point.watts - board.idle_w) * share**board.power_exponent,
                point.decode * share**board.decode_exponent,
                point.prefill * share,
            )


def _hull(flows: list[Flow], phase: Phase) -> list[Flow]:
    """Those on the upper concave hull, by rising watts and speed."""
    hull: list[Flow] = []
    for flow in sorted(flows, key=lambda each: (each.watts, -getattr(each, phase))):
        speed = getattr(flow, phase)
        if hull and speed <= getattr(hull[-1], phase):
            continue
        while len(hull) > 1 and _slope(hull[-2], flow, phase) >= _slope(hull[-2], hull[-1], phase):
            hull.pop()
        hull.append(flow)
    return hull


def _slope(low: Flow, high: Flow, phase: Phase) -> float:
    gained: float = getattr(high, phase) - getattr(low, phase)
    return gained / (high.watts - low.watts)
