"""What the temperature will be: a small observer of two RC stages and one disturbance.

One sensor read twice a second does not identify two stages, the ambient and the watts; so time
constants and resistances come from the profile, and what is estimated is each stage's
temperature rise, and one offset that takes in the ambient and all that the profile has wrong. A
fan's steps change the outer stage's resistance: one slow factor each, which learns only while the
watts have moved enough to tell it from the offset.
"""

import math
from dataclasses import dataclass
from typing import Final

from edged.hardware.board import Stage

SENSOR_SD_C: Final = 0.35
"""Of a reading: the noise and the steps of a board's sensor."""
POWER_SD_W: Final = 0.35
"""How far the estimated watts may be off; it makes the stages drift."""
DRIFT_SD_C: Final = 0.03
"""How far the offset moves in a second: a room that is heated, sun on the case."""
_START_SD_C: Final = (3.0, 8.0, 10.0)
GAIN_RATE: Final = 0.006
GAIN_BOUNDS: Final = (0.4, 2.0)
EXCITED_W: Final = 0.3
"""Standard deviation of the watts over some minutes, from which on a fan's factor is learnt."""
EXCITEMENT_S: Final = 300.0
DRIFT_S: Final = 30.0
"""How long a drift is averaged over."""
MOST_SPREAD_C: Final = 1.5
"""However noisy the sensor: the estimate must go on following it."""
SPREAD_S: Final = 60.0
"""How long the spread of the surprises is averaged over."""
UNKNOWN_SPREAD_C: Final = 1.0
UNKNOWN_S: Final = 10.0
"""A sensor that is not known yet is taken to be noisy: as if it had been so for so long."""
LASTING_S: Final = 5.0
"""Noise is gone from surprises averaged over so long; what is left of them is the model's fault,"""
CHANCE_SDS: Final = 2.0
"""beyond what is left of noise by chance, in its standard deviations."""


@dataclass(frozen=True)
class Forecast:
    """Temperatures are linear in the watts: at 0 W, and what each watt adds."""

    at_zero_w_c: float
    k_per_w: float

    def budget_w(self, limit_c: float) -> float:
        """The constant watts that end at the limit."""
        return (limit_c - self.at_zero_w_c) / self.k_per_w


class Observer:
    """Follows the temperature; ``update`` is called with each reading."""

    def __init__(self, stages: tuple[Stage, Stage]) -> None:
        self._stages = stages
        self._state: list[float] | None = None
        self._p = [[0.0] * 3 for _ in range(3)]
        self._gains: dict[int, float] = {}
        self._fan_step = 0
        self._mean_w: float | None = None
        self._variance_w = 0.0
        self._surprise_c = 0.0
        self._lasting_c = 0.0
        self.drift_c_per_s = 0.0
        """How fast it has been getting warmer of late beyond what the model knows."""
        self.spread_c = UNKNOWN_SPREAD_C
        """Standard deviation of readings around what they should be, of late."""
        self._spread_of_s = UNKNOWN_S

    @property
    def temperature_c(self) -> float | None:
        """As estimated now; ``None`` before the first reading."""
        return None if self._state is None else sum(self._state)

    @property
    def uncertainty_c(self) -> float:
        """Standard deviation of the estimated temperature: many readings know more than one."""
        return math.sqrt(max(sum(sum(row) for row in self._p), 0.0))

    @property
    def offset_c(self) -> float | None:
        """What stands for the ambient."""
        return None if self._state is None else self._state[2]

    @property
    def gain(self) -> float:
        """What the fan, as it turns now, makes of the outer stage's resistance."""
        return self._gains.get(self._fan_step, 1.0)

    def update(
        self, took_s: float, watts: float, measured_c: float | None, fan_step: int | None
    ) -> None:
        """``took_s`` have passed at ``watts``; without a reading the model goes on alone."""
        self._turn_to(fan_step or 0)
        if self._state is None:
            if measured_c is not None:
                self._begin(watts, measured_c)
            return
        self._predict(took_s, watts)
        if measured_c is not None:
            self._correct(took_s, measured_c)

    def forecast(self, horizon_s: float) -> Forecast:
        """Of constant watts over the horizon."""
        assert self._state is not None
        at_zero_c, k_per_w = self._state[2], 0.0
        for rise_c, stage, r in zip(self._state, self._stages, self._resistances(), strict=False):
            left = math.exp(-horizon_s / stage.tau_s)
            at_zero_c += rise_c * left
            k_per_w += r * (1 - left)
        return Forecast(at_zero_c, k_per_w)

    def _turn_to(self, fan_step: int) -> None:
        """A step that was never seen is taken to be like the one before."""
        gain = self.gain
        self._fan_step = fan_step
        self._gains.setdefault(fan_step, gain)

    def _resistances(self) -> tuple[float, float]:
        inner, outer = self._stages
        return inner.r_k_per_w, outer.r_k_per_w * self.gain

    def _begin(self, watts: float, measured_c: float) -> None:
        """As if this had gone on for long; the spread says that it need not have."""
        rises = [watts * r for r in self._resistances()]
        self._state = [*rises, measured_c - sum(rises)]
        for index, sd_c in enumerate(_START_SD_C):
            self._p[index][index] = sd_c**2
        # What is known well is the sum: the three may only be wrong together.
        self._correct(0.0, measured_c)

    def _predict(self, took_s: float, watts: float) -> None:
        assert self._state is not None
        keeps = [math.exp(-took_s / stage.tau_s) for stage in self._stages] + [1.0]
        resistances = self._resistances()
        for index, r in enumerate(resistances):
            keep = keeps[index]
            self._state[index] = keep * self._state[index] + (1 - keep) * r * watts
        p = self._p
        for row in range(3):
            for column in range(3):
                p[row][column] *= keeps[row] * keeps[column]
        # An error of the watts lasts, so its steps add up rather than average out.
        noise_c = [POWER_SD_W * r * (1 - keep) for r, keep in zip(resistances, keeps, strict=False)]
        for row in range(2):
            for column in range(2):
                p[row][column] += noise_c[row] * noise_c[column] / max(took_s, 0.1)
        p[2][2] += DRIFT_SD_C**2 * took_s
        self._learn_excitement(took_s, watts)

    def _correct(self, took_s: float, measured_c: float) -> None:
        assert self._state is not None
        p = self._p
        surprise_c = measured_c - sum(self._state)
        self._doubt(took_s, surprise_c)
        sums = [sum(row) for row in p]
        variance = sum(sums) + max(SENSOR_SD_C, self.spread_c) ** 2
        for index in range(3):
            self._state[index] += sums[index] / variance * surprise_c
        if took_s:
            rate = sum(sums) / variance * surprise_c / took_s
            self.drift_c_per_s += min(took_s / DRIFT_S, 1.0) * (rate - self.drift_c_per_s)
        self._p = [
            [p[row][column] - sums[row] * sums[column] / variance for column in range(3)]
            for row in range(3)
        ]
        # Of what changes from one to the next: a lasting surprise is drift, not noise.
        share = min(took_s / self._spread_of_s, 1.0)
        self._spread_of_s = min(self._spread_of_s + took_s, SPREAD_S)
        noise = (surprise_c - self._surprise_c) ** 2 / 2
        self._surprise_c = surprise_c
        self.spread_c = min(
            math.sqrt((1 - share) * self.spread_c**2 + share * noise), MOST_SPREAD_C
        )
        if self._variance_w > EXCITED_W**2:
            self._learn_gain(surprise_c)

    def _doubt(self, took_s: float, surprise_c: float) -> None:
        """Where readings go on surprising in one direction the estimate is as wrong as that.

        The offset takes it in, whatever it is: a sprint that heats more than the profile says, a
        room that is suddenly hot. So it follows at once, and the margin is as wide as the doubt.
        """
        share = min(took_s / LASTING_S, 1.0)
        self._lasting_c += share * (surprise_c - self._lasting_c)
        by_chance = CHANCE_SDS**2 * self.spread_c**2 * share / 2
        known = self.uncertainty_c**2 + by_chance
        self._p[2][2] += max(self._lasting_c**2 - known, 0.0)

    def _learn_excitement(self, took_s: float, watts: float) -> None:
        if self._mean_w is None:
            self._mean_w = watts
        share = min(took_s / EXCITEMENT_S, 1.0)
        off_w = watts - self._mean_w
        self._mean_w += share * off_w
        self._variance_w += share * (off_w**2 - self._variance_w)

    def _learn_gain(self, surprise_c: float) -> None:
        """A positive surprise while the outer stage is warmer than usual: it resists more."""
        assert self._state is not None
        assert self._mean_w is not None
        outer = self._stages[1]
        unusual_c = self._state[1] - outer.r_k_per_w * self.gain * self._mean_w
        gain = self.gain + GAIN_RATE * surprise_c * unusual_c / max(1.0, outer.r_k_per_w)
        self._gains[self._fan_step] = min(max(gain, GAIN_BOUNDS[0]), GAIN_BOUNDS[1])
