"""How hard the board may work now, by its heat: a budget of watts, regulated by a forecast.

    reading ─► observer ─► forecast ─► budget ─► operating point ─► pace, level
                                         ▲
            hysteresis, the firmware's evidence, blindness: they can only lower it

Pure: readings and demand go in, a decision comes out; the only clock is the readings'.
"""

import math
from dataclasses import dataclass
from typing import Final

from edged.hardware.board import Board
from edged.messages import Level, Pace, Reading
from edged.throttle.evidence import Evidence, Heat
from edged.throttle.headroom import Headroom
from edged.throttle.levels import Levels
from edged.throttle.observer import Observer
from edged.throttle.points import Operation, Operations, Phase

FIRST_STEP_S: Final = 0.5
HORIZON_S: Final = 15.0
"""How far ahead the forecast must stay below the limit. The next decision comes much sooner; but
what an estimate errs by moves a budget for long the less, and even watts buy more tokens."""
SPRINT_S: Final = 5.0
"""The same for a prompt that has just begun to be read: most are short. Later it is taken to go on
for as long as it has been going on."""
FORECAST_S: Final = 60.0
"""What the state shows: the temperature so far ahead, at the pace of now."""
MARGIN_C: Final = 0.2
MARGIN_UNCERTAINTIES: Final = 2.5
MOST_MARGIN_C: Final = 3.0
"""Below the limit by this much, and by what the estimated temperature may be wrong: many readings
are known better than one, and after a start nothing is."""
BURST_SPREADS: Final = 1.0
"""A sprint is over before a noisy or late sensor has told of it, so it keeps further away."""
DRIFT_AHEAD_S: Final = 16.0
"""A drift that the model does not know goes on: over the horizon, and what estimating it lags."""
BELOW_PASSIVE_C: Final = 5.0
"""Where no profile names a limit: so far below the passive trip point."""
BLIND_AMBIENT_C: Final = 40.0
"""Without a temperature: what the worst cooling carries away in a room as hot as this."""
RESUMED_DUTY: Final = 0.3
"""A worker that was paused for want of a budget starts again at no less."""
GENTLE_CHUNK_S: Final = 0.25
"""Where rests are needed a prompt is read in short steps, so that rests are short, too."""
SHED_WIDTH: Final = 1
"""Answers at a time on a card that its driver slows down."""


@dataclass(frozen=True)
class Demand:
    """What is asked of the worker: prompts that wait, that are being read, and answered."""

    queued: int
    reading: int
    answering: int


@dataclass(frozen=True)
class Decision:
    """What to do until the next one; ``since_s`` is on the readings' clock.

    ``watts`` is what the board is taken to draw from now on, ``clock_mhz`` the cap on its clock.
    """

    level: Level
    reason: str
    sensor: str | None
    since_s: float
    pace: Pace
    clock_mhz: int | None
    limit_c: float | None
    forecast_c: float | None
    is_overheated: bool
    watts: float
    speed: float = 1.0
    """Of this pace, relative to the fastest; 0 is paused."""


@dataclass(frozen=True)
class _Budget:
    """Watts on average; infinite where nothing limits."""

    decode_w: float = math.inf
    prefill_w: float = math.inf
    reason: str = ""


class ThermalGovernor:
    """Of one board; ``decide`` is called twice a second."""

    def __init__(self, board: Board, *, has_clock: bool = False) -> None:
        """``has_clock``: the cap on the clock may be set."""
        self._board = board
        self._operations = Operations(board, has_clock=has_clock)
        self._most_threads = max(point.threads for point in board.points)
        self._observer = Observer(board.stages)
        self._evidence = Evidence(board.critical_c)
        self._headroom = Headroom()
        self._levels = Levels()
        self._watts = self._operations.idle_w
        self._last_s: float | None = None
        self._has_seen = False
        self._is_out = False

    def decide(self, reading: Reading, demand: Demand) -> Decision:
        """Never raises; what cannot be known makes it careful."""
        now_s = reading.monotonic_s
        took_s = FIRST_STEP_S if self._last_s is None else max(now_s - self._last_s, 0.0)
        self._last_s = now_s
        self._has_seen = self._has_seen or reading.temperature_c is not None
        is_idle = not (demand.reading or demand.answering)
        self._observer.update(took_s, self._watts, reading.temperature_c, reading.fan_step)
        self._headroom.update(took_s, is_reading=demand.reading > 0, is_idle=is_idle)
        limit_c = self._limit_c(reading)
        if not self._board.is_governed or limit_c is None:
            return self._observed(reading, limit_c, took_s)
        heat = self._evidence.weigh(reading, limit_c, self._observer.spread_c)
        budget = self._budget(reading, limit_c, heat)
        phase: Phase = "prefill" if demand.reading else "decode"
        decode, prefill = self._operations_for(budget, phase)
        operation = decode if phase == "decode" else prefill
        is_paused = operation is None
        speed = 0.0 if operation is None else operation.speed / self._fastest(phase)
        level = self._levels.update(now_s, took_s, speed)
        resting_w = self._operations.idle_w
        self._watts = resting_w if is_idle or operation is None else operation.watts
        return Decision(
            level=level,
            reason=budget.reason if level != "nominal" else "",
            sensor=reading.temperature_sensor,
            since_s=self._levels.since_s,
            pace=self._pace(decode, prefill, is_paused=is_paused),
            clock_mhz=None if operation is None else operation.mhz,
            limit_c=limit_c,
            forecast_c=self._forecast_c(),
            is_overheated=heat is Heat.CRITICAL,
            watts=self._watts,
            speed=speed,
        )

    def _limit_c(self, reading: Reading) -> float | None:
        """The profile's or the operator's, or a passive trip point that is lower."""
        limit_c = self._board.limit_c
        if reading.passive_c is None:
            return limit_c
        if limit_c is None:
            return reading.passive_c - BELOW_PASSIVE_C
        return min(limit_c, reading.passive_c)

    def _budget(self, reading: Reading, limit_c: float, heat: Heat) -> _Budget:
        if heat >= Heat.STOP:
            return _Budget(-math.inf, -math.inf, f"far above its limit of {limit_c:g} °C")
        coolest_w = self._operations.coolest("decode").watts
        decode_w = prefill_w = math.inf
        reason = f"held below {limit_c:g} °C"
        if self._observer.temperature_c is not None:
            target_c = limit_c - self._margin_c()
            prefill_w, decode_w = self._reading_w(target_c), self._answering_w(target_c)
        if heat is Heat.OVER:
            prefill_w, decode_w = min(prefill_w, coolest_w), min(decode_w, coolest_w)
            reason = f"above its limit of {limit_c:g} °C, or slowed down by the firmware"
        if reading.temperature_c is None and (self._board.zone is not None or self._has_seen):
            blind_w = self.blind_w(limit_c)
            prefill_w, decode_w = min(prefill_w, blind_w), min(decode_w, blind_w)
            reason = "no temperature can be read, so the pace is what the worst cooling allows"
        return _Budget(decode_w, prefill_w, reason)

    def _margin_c(self) -> float:
        observer = self._observer
        drift_c = max(0.0, observer.drift_c_per_s) * DRIFT_AHEAD_S
        margin_c = MARGIN_C + MARGIN_UNCERTAINTIES * observer.uncertainty_c + drift_c
        return min(margin_c + self._evidence.learnt_c, MOST_MARGIN_C)

    def _reading_w(self, target_c: float) -> float:
        going_on_s = min(max(SPRINT_S, self._headroom.reading_s), HORIZON_S)
        return self._observer.forecast(going_on_s).budget_w(target_c - self._sprint_c)

    def _answering_w(self, target_c: float) -> float:
        """No more than leaves headroom; which is worth working cooler for, but not stopping."""
        coolest_w = self._operations.coolest("decode").watts
        # The next prompt may come soon; without pauses nothing is to be cool for.
        soon_s = HORIZON_S - self._headroom.share * (HORIZON_S - SPRINT_S)
        spared_c = target_c - self._sprint_c - self._reserve_c(coolest_w)
        sparing_w = self._observer.forecast(soon_s).budget_w(spared_c)
        most_w = self._observer.forecast(HORIZON_S).budget_w(target_c)
        return min(most_w, max(sparing_w, coolest_w))

    @property
    def _sprint_c(self) -> float:
        return BURST_SPREADS * self._observer.spread_c * self._headroom.share

    def blind_w(self, limit_c: float) -> float:
        """What is safe where nothing is known of the temperature."""
        return max(limit_c - BLIND_AMBIENT_C, 0.0) / self._board.worst_r_k_per_w

    def _reserve_c(self, decoding_w: float) -> float:
        """What reading the next prompt at full speed will add to a board that decodes."""
        k_per_w = self._observer.forecast(self._headroom.read_s).k_per_w
        full_w = self._operations.fastest("prefill").watts
        return self._headroom.share * (full_w - decoding_w) * k_per_w

    def _operations_for(
        self, budget: _Budget, phase: Phase
    ) -> tuple[Operation | None, Operation | None]:
        """To decode and to read with: the clock is that of what is being done."""
        watts = {"decode": budget.decode_w, "prefill": budget.prefill_w}
        now = self._operations.best(phase, watts[phase])
        self._is_out = now is None or (self._is_out and now.duty < RESUMED_DUTY)
        if self._is_out or now is None:
            return None, None
        other: Phase = "prefill" if phase == "decode" else "decode"
        then = self._operations.best(other, watts[other], now.mhz)
        return (now, then) if phase == "decode" else (then, now)

    def _pace(
        self, decode: Operation | None, prefill: Operation | None, *, is_paused: bool
    ) -> Pace:
        # A phase that has no budget of its own while the other works has the other's.
        decode, prefill = decode or prefill, prefill or decode
        if is_paused or decode is None or prefill is None:
            return Pace(paused=True)
        rests = decode.duty < 1 or prefill.duty < 1
        return Pace(
            threads_decode=self._threads(decode),
            threads_prefill=self._threads(prefill),
            duty_decode=round(decode.duty, 3),
            duty_prefill=round(prefill.duty, 3),
            chunk_s=GENTLE_CHUNK_S if rests else None,
        )

    def _threads(self, operation: Operation) -> int | None:
        """``None`` for all: the engine knows how many of them are best."""
        return operation.threads if operation.threads < self._most_threads else None

    def _fastest(self, phase: Phase) -> float:
        return self._operations.fastest(phase).speed

    def _forecast_c(self) -> float | None:
        if self._observer.temperature_c is None:
            return None
        forecast = self._observer.forecast(FORECAST_S)
        return round(forecast.at_zero_w_c + forecast.k_per_w * self._watts, 1)

    def _observed(self, reading: Reading, limit_c: float | None, took_s: float) -> Decision:
        """A card that its driver regulates, or a machine without a limit: report, shed load."""
        is_slowed = reading.is_slowed
        speed = 0.9 if is_slowed else 1.0
        level = self._levels.update(reading.monotonic_s, took_s, speed)
        return Decision(
            level=level,
            reason="its driver slows it down for its heat" if level != "nominal" else "",
            sensor=reading.temperature_sensor,
            since_s=self._levels.since_s,
            pace=Pace(width=SHED_WIDTH) if is_slowed else Pace(),
            clock_mhz=None,
            limit_c=limit_c,
            forecast_c=None,
            is_overheated=False,
            watts=reading.watts or 0.0,
            speed=speed,
        )
