"""The governor and what it is compared with: sensors in, an order to the worker out."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from edged.errors import ConfigError
from edged.hardware.board import board_of
from edged.hardware.profile import read_profile
from edged.hardware.twin import TwinBoard
from edged.messages import Level, Pace, Reading
from edged.simulation.oracle import Oracle, resistance_at_limit
from edged.simulation.scenario import Ambient, Scenario
from edged.simulation.worker import Flow
from edged.throttle.governor import Demand, ThermalGovernor
from edged.throttle.levels import THROTTLED_SPEED, TRIMMED_SPEED

OFF_C: Final = 75.0
ON_C: Final = 70.0
STEPWISE_TRIP_C: Final = 75.0
STEPWISE_S: Final = 5.0
"""Between two steps, for the heat to answer."""
DUTY_AMBIENT_C: Final = 35.0
"""The room that a fixed duty, and the kernel's sustainable power, are set for."""
LEAST_DUTY: Final = 0.05
PI_ON_C: Final = 75.0
PI_BELOW_LIMIT_C: Final = 1.0
"""As near to the limit as a control of 2 Hz on a noisy sensor gets without passing it."""
PI_INTEGRAL_S: Final = 50.0
CLOCK_STEP_MHZ: Final = 100


@dataclass(frozen=True)
class Order:
    """What to do until the next one.

    ``watts`` is what the policy takes the board to draw, if it reckons with it. ``flows`` is the
    oracle's alone: how to decode and to read, whatever pace and clock would say.
    """

    level: Level
    pace: Pace = field(default_factory=Pace)
    clock_mhz: int | None = None
    watts: float | None = None
    flows: tuple[Flow, Flow] | None = None


class Policy(Protocol):
    """Called twice a second of virtual time."""

    def decide(self, reading: Reading, demand: Demand) -> Order:
        """Pure but for what it remembers."""


class Governor:
    """edged's own: it knows the profile, not the case."""

    def __init__(self, scenario: Scenario, board: TwinBoard) -> None:
        profile = read_profile(scenario.profile)
        assumed = board_of(profile, cores=profile.cpu.cores or board.most_threads)
        self._governor = ThermalGovernor(assumed, has_clock=scenario.has_clock)

    def decide(self, reading: Reading, demand: Demand) -> Order:
        decision = self._governor.decide(reading, demand)
        return Order(decision.level, decision.pace, decision.clock_mhz, decision.watts)


class FirmwareOnly:
    """Full speed; the firmware does what it does."""

    def __init__(self, scenario: Scenario, board: TwinBoard) -> None:
        """Neither is needed."""

    def decide(self, reading: Reading, demand: Demand) -> Order:  # noqa: ARG002
        return Order("nominal")


class OnOff:
    """Stops at 75 °C, goes on at 70."""

    def __init__(self, scenario: Scenario, board: TwinBoard) -> None:  # noqa: ARG002
        self._is_off = False

    def decide(self, reading: Reading, demand: Demand) -> Order:  # noqa: ARG002
        if reading.temperature_c is not None:
            self._is_off = reading.temperature_c > (ON_C if self._is_off else OFF_C)
        return Order("paused", Pace(paused=True)) if self._is_off else Order("nominal")


class StepWise:
    """As the kernel's step_wise, on threads: one less while it is hot and rising, and back."""

    def __init__(self, scenario: Scenario, board: TwinBoard) -> None:  # noqa: ARG002
        self._board = board
        self._threads = board.most_threads
        self._last_c: float | None = None
        self._stepped_s = 0.0

    def decide(self, reading: Reading, demand: Demand) -> Order:  # noqa: ARG002
        now_c, now_s = reading.temperature_c, reading.monotonic_s
        if now_c is not None and now_s - self._stepped_s >= STEPWISE_S:
            rising_c = 0.0 if self._last_c is None else now_c - self._last_c
            if now_c >= STEPWISE_TRIP_C and rising_c >= 0:
                self._threads = max(self._threads - 1, 1)
            elif now_c < STEPWISE_TRIP_C and rising_c <= 0:
                self._threads = min(self._threads + 1, self._board.most_threads)
            self._last_c, self._stepped_s = now_c, now_s
        point = next(each for each in self._board.points if each.threads == self._threads)
        pace = Pace(threads_decode=self._threads, threads_prefill=self._threads)
        return Order(level_of(point.decode), pace)


class FixedDuty:
    """The share of the time that ends at the limit in a room of 35 °C, in the case at hand."""

    def __init__(self, scenario: Scenario, board: TwinBoard) -> None:  # noqa: ARG002
        self._duty = _duty(board, sustainable_w(board))

    def decide(self, reading: Reading, demand: Demand) -> Order:  # noqa: ARG002
        return Order(level_of(self._duty), Pace(duty_decode=self._duty, duty_prefill=self._duty))


class PowerAllocator:
    """As the kernel's power_allocator: a PI control of the watts, spent on the clock.

    k_po = P / (T_set - T_on), k_pu = 2 k_po, the integral only while it is too hot (its cutoff is
    0). Where the clock has no more to give, or cannot be set, rests follow.
    """

    def __init__(self, scenario: Scenario, board: TwinBoard) -> None:
        self._board = board
        self._has_clock = scenario.has_clock
        self._sustainable_w = sustainable_w(board)
        self._set_c = board.soft_c - PI_BELOW_LIMIT_C
        self._k_po = self._sustainable_w / (self._set_c - PI_ON_C)
        self._integral_w = 0.0
        self._last_s = 0.0

    def decide(self, reading: Reading, demand: Demand) -> Order:  # noqa: ARG002
        now_c, took_s = reading.temperature_c, reading.monotonic_s - self._last_s
        self._last_s = reading.monotonic_s
        if now_c is None or now_c < PI_ON_C:
            self._integral_w = 0.0
            return Order("nominal")
        missing_c = self._set_c - now_c
        gain = self._k_po if missing_c < 0 else 2 * self._k_po
        if missing_c < 0:
            self._integral_w += self._k_po * missing_c * took_s / PI_INTEGRAL_S
        return self._spend(self._sustainable_w + gain * missing_c + self._integral_w)

    def _spend(self, watts: float) -> Order:
        board = self._board
        full_w = board.points[-1].watts - board.idle_w
        share = min(max((watts - board.idle_w) / full_w, 0.0), 1.0) ** (1 / board.power_exponent)
        mhz = math.floor(share * board.max_mhz / CLOCK_STEP_MHZ) * CLOCK_STEP_MHZ
        if self._has_clock and mhz >= board.min_mhz:
            return Order(level_of(mhz / board.max_mhz), clock_mhz=mhz)
        least_mhz = board.min_mhz if self._has_clock else board.max_mhz
        duty = _duty(board, watts, least_mhz)
        speed = duty * least_mhz / board.max_mhz
        pace = Pace(duty_decode=duty, duty_prefill=duty)
        return Order(level_of(speed), pace, least_mhz if self._has_clock else None)


class Clairvoyant:
    """The oracle: constant watts that end each segment of the ambient at the limit."""

    def __init__(self, scenario: Scenario, board: TwinBoard) -> None:
        self._oracle = Oracle(board, has_clock=scenario.has_clock)
        self._ambient = Ambient.parse(scenario.ambient)

    def decide(self, reading: Reading, demand: Demand) -> Order:  # noqa: ARG002
        watts = self._oracle.sustainable_w(self._ambient.at(reading.monotonic_s))
        decode = self._oracle.best("decode", watts)
        prefill = self._oracle.best("prefill", watts)
        return Order(level_of(decode.decode), flows=(decode, prefill))


POLICIES: Final[dict[str, Callable[[Scenario, TwinBoard], Policy]]] = {
    "governor": Governor,
    "none": FirmwareOnly,
    "hysteresis": OnOff,
    "stepwise": StepWise,
    "duty": FixedDuty,
    "pi": PowerAllocator,
    "oracle": Clairvoyant,
}


def policy_of(name: str, scenario: Scenario, board: TwinBoard) -> Policy:
    """By its name. Raises ``ConfigError`` if it is not known."""
    if name not in POLICIES:
        raise ConfigError(f"there is no policy {name}; known are: {', '.join(POLICIES)}")
    return POLICIES[name](scenario, board)


def level_of(speed: float) -> Level:
    """As the governor's levels, of a speed relative to the fastest."""
    if speed <= 0:
        return "paused"
    if speed < THROTTLED_SPEED:
        return "throttled"
    return "trimmed" if speed < TRIMMED_SPEED else "nominal"


def sustainable_w(board: TwinBoard) -> float:
    """The watts that end at the limit in a room of 35 °C."""
    return (board.soft_c - DUTY_AMBIENT_C) / resistance_at_limit(board)


def _duty(board: TwinBoard, watts: float, mhz: int | None = None) -> float:
    """The share of the time that draws so many watts on average, with all threads."""
    share = 1.0 if mhz is None else mhz / board.max_mhz
    above_w = (board.points[-1].watts - board.idle_w) * math.pow(share, board.power_exponent)
    return min(max((watts - board.idle_w) / above_w, LEAST_DUTY), 1.0)
