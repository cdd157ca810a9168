"""A simulated board: its heat, its clock and its firmware, seen through files as a kernel's.

Nothing here is measured; docs/throttling-twin.md has the equations and where each constant comes
from. Time is virtual: it passes with ``Twin.advance`` alone.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edged.errors import ConfigError
from edged.hardware.schema import OperatingPoint, Profile, Stage
from edged.hardware.twin_files import Shown, TwinFiles

FIRMWARE_MHZ_PER_S: Final = 100.0
"""How fast a Raspberry Pi's firmware takes the clock off and gives it back."""
FIRMWARE_LEAST_MHZ: Final = 1500
FIRMWARE_HARD_MHZ: Final = 1000
FIRMWARE_BACK_BELOW_C: Final = 2.0
THROTTLED_NOW: Final = 0b0110
"""Bits of ``get_throttled``: clock capped, throttled; 16 higher: since the start."""
HAPPENED: Final = 16
FAN_TRIPS_C: Final = (50.0, 60.0, 67.5, 75.0)
FAN_HYSTERESIS_C: Final = 5.0
_SENSOR_ZERO_C: Final = 450.0
"""Where the steps of the sensor are counted from, downwards."""


@dataclass(frozen=True)
class SensorLoss:
    """A sensor that says nothing from then on, in virtual time."""

    sensor: Literal["zone", "hwmon"]
    from_s: float
    until_s: float = math.inf


@dataclass(frozen=True)
class TwinBoard:
    """What is simulated, as far as it never changes.

    ``fan_scales``: what is left of the outer stage's resistance with the fan off and at each of its
    steps; ``None`` where there is no fan to regulate.
    """

    zone: str
    stages: tuple[Stage, ...]
    """From the chip outwards."""
    points: tuple[OperatingPoint, ...]
    min_mhz: int
    max_mhz: int
    soft_c: float
    hard_c: float
    critical_c: float
    memory_mib: int
    power_exponent: float = 3.0
    decode_exponent: float = 0.3
    sensor_lag_s: float = 0.5
    sensor_step_c: float = 0.55
    sensor_noise_sd_c: float = 0.2
    fan_scales: tuple[float, ...] | None = None
    losses: tuple[SensorLoss, ...] = ()

    @property
    def idle_w(self) -> float:
        """What it draws while it rests."""
        return self.points[0].watts

    @property
    def most_threads(self) -> int:
        """How many it works with where nobody says how many."""
        return self.points[-1].threads


def twin_board(profile: Profile, case: str) -> TwinBoard:
    """The board of a profile in one of its cases. Raises ``ConfigError`` if it says too little."""
    thermal, cpu = profile.thermal, profile.cpu
    if thermal is None or not thermal.cooling:
        raise ConfigError(
            f"the profile {profile.name} has no [thermal.cooling] to simulate; pi5-8gb has"
        )
    if case not in thermal.cooling:
        known = ", ".join(thermal.cooling)
        raise ConfigError(f"the profile {profile.name} knows no case {case}; known are: {known}")
    points = tuple(sorted(profile.operating_points, key=lambda point: point.threads))
    if len(points) < 2 or points[0].threads != 0:
        raise ConfigError(
            f"the profile {profile.name} needs [[operating_points]] for 0 threads, idle, and more"
        )
    if cpu.min_mhz is None or cpu.max_mhz is None or profile.memory.total_mib is None:
        raise ConfigError(
            f"the profile {profile.name} needs cpu.min_mhz, cpu.max_mhz and memory.total_mib"
        )
    soft_c = thermal.act_c if thermal.soft_c is None else thermal.soft_c
    hard_c = soft_c if thermal.hard_c is None else thermal.hard_c
    return TwinBoard(
        zone=thermal.zone,
        stages=thermal.cooling[case].stages,
        points=points,
        min_mhz=cpu.min_mhz,
        max_mhz=cpu.max_mhz,
        soft_c=soft_c,
        hard_c=hard_c,
        critical_c=hard_c if thermal.critical_c is None else thermal.critical_c,
        memory_mib=profile.memory.total_mib,
    )


class Twin:
    """One board in virtual time, which begins idle and settled at the ambient temperature."""

    def __init__(self, board: TwinBoard, root: Path, *, ambient_c: float, seed: int = 0) -> None:
        """Makes the files below ``root``, which stands for ``/``."""
        self.board = board
        self.ambient_c = ambient_c
        """Of the air; it may be set at any time."""
        self.now_s = 0.0
        self.joules = 0.0
        self.fan_step = 0
        self._air_c = ambient_c
        self._rises_c = [stage.r_k_per_w * board.idle_w for stage in board.stages]
        self._lagged_c = self.temperature_c
        self._cap_mhz = float(board.max_mhz)
        self._firmware_mhz = float(board.max_mhz)
        self._throttled = 0
        self._points = {point.threads: point for point in board.points}
        self._random = random.Random(seed)
        self._files = TwinFiles(root, board.zone, board.critical_c, has_fan=self._has_fan)
        self._files.make(board.min_mhz, board.max_mhz, board.memory_mib)
        self.sensed_c = 0.0
        """What the files said last."""
        self.publish()

    @property
    def temperature_c(self) -> float:
        """The true one of the chip."""
        return self._air_c + sum(self._rises_c)

    @property
    def clock_mhz(self) -> float:
        """The lower of the cap and of what the firmware allows."""
        is_hard = self._lagged_c >= self.board.hard_c
        allowed_mhz = min(self._firmware_mhz, FIRMWARE_HARD_MHZ) if is_hard else self._firmware_mhz
        return min(self._cap_mhz, allowed_mhz)

    def watts(self, threads: int | None = None) -> float:
        """What the board draws while it works, at the clock of now; ``None``: with all threads."""
        share = self.clock_mhz / self.board.max_mhz
        idle_w = self.board.idle_w
        full_w = self._point(threads).watts
        return idle_w + (full_w - idle_w) * math.pow(share, self.board.power_exponent)

    def decode_speed(self, threads: int | None = None) -> float:
        """Relative to the fastest, at the clock of now."""
        share = self.clock_mhz / self.board.max_mhz
        return self._point(threads).decode * math.pow(share, self.board.decode_exponent)

    def prefill_speed(self, threads: int | None = None) -> float:
        """Relative to the fastest, at the clock of now."""
        return self._point(threads).prefill * self.clock_mhz / self.board.max_mhz

    def advance(self, took_s: float, watts: float) -> None:
        """``took_s`` have passed at constant watts and ambient: exact, however long they were."""
        self.now_s += took_s
        self.joules += watts * took_s
        stages = self.board.stages
        outer = len(stages) - 1
        for index, stage in enumerate(stages):
            scale = self._outer_scale if index == outer else 1.0
            # A fan changes the resistance, not the heat capacity, so the time constant with it.
            keep = math.exp(-took_s / (stage.tau_s * scale))
            settled_c = stage.r_k_per_w * scale * watts
            self._rises_c[index] = settled_c + (self._rises_c[index] - settled_c) * keep
            if index == outer:
                self._air_c = self.ambient_c + (self._air_c - self.ambient_c) * keep
        keep = math.exp(-took_s / self.board.sensor_lag_s)
        self._lagged_c = self.temperature_c + (self._lagged_c - self.temperature_c) * keep
        self._turn_fan()
        self._throttle(took_s)

    def publish(self) -> None:
        """Convert the temperature once more, and write what has changed to the files."""
        self.sensed_c = self._sampled_c()
        self._files.show(
            Shown(
                zone_c=None if self._is_lost("zone") else self.sensed_c,
                hwmon_c=None if self._is_lost("hwmon") else self.sensed_c,
                clock_mhz=self.clock_mhz,
                throttled=self._throttled,
                fan_step=self.fan_step,
            )
        )

    def obey(self) -> None:
        """Take the cap on the clock from its file, within what the processor can."""
        wanted_mhz = self._files.cap_mhz()
        if wanted_mhz is not None:
            self._cap_mhz = min(max(wanted_mhz, self.board.min_mhz), self.board.max_mhz)

    @property
    def _has_fan(self) -> bool:
        return self.board.fan_scales is not None

    @property
    def _outer_scale(self) -> float:
        scales = self.board.fan_scales
        return 1.0 if scales is None else scales[self.fan_step]

    def _point(self, threads: int | None) -> OperatingPoint:
        most = self.board.most_threads
        return self._points[most if threads is None else min(threads, most)]

    def _is_lost(self, sensor: str) -> bool:
        return any(
            loss.sensor == sensor and loss.from_s <= self.now_s < loss.until_s
            for loss in self.board.losses
        )

    def _sampled_c(self) -> float:
        noisy_c = self._lagged_c + self._random.gauss(0.0, self.board.sensor_noise_sd_c)
        step_c = self.board.sensor_step_c
        if not step_c:
            return noisy_c
        return _SENSOR_ZERO_C - step_c * round((_SENSOR_ZERO_C - noisy_c) / step_c)

    def _turn_fan(self) -> None:
        if not self._has_fan:
            return
        trips_c = FAN_TRIPS_C
        while self.fan_step < len(trips_c) and self._lagged_c >= trips_c[self.fan_step]:
            self.fan_step += 1
        while self.fan_step and self._lagged_c < trips_c[self.fan_step - 1] - FAN_HYSTERESIS_C:
            self.fan_step -= 1

    def _throttle(self, took_s: float) -> None:
        """What the firmware does; it averages so often that noise and steps do not count."""
        change_mhz = FIRMWARE_MHZ_PER_S * took_s
        if self._lagged_c >= self.board.soft_c:
            least_mhz = min(FIRMWARE_LEAST_MHZ, self.board.max_mhz)
            self._firmware_mhz = max(self._firmware_mhz - change_mhz, least_mhz)
        elif self._lagged_c < self.board.soft_c - FIRMWARE_BACK_BELOW_C:
            self._firmware_mhz = min(self._firmware_mhz + change_mhz, self.board.max_mhz)
        is_slowed = self._firmware_mhz < self.board.max_mhz
        happened = self._throttled >> HAPPENED << HAPPENED
        if is_slowed:
            happened |= THROTTLED_NOW | THROTTLED_NOW << HAPPENED
        self._throttled = happened
