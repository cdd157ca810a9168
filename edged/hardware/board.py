"""What the governor knows of a board: limits, thermal constants, operating points.

Plain data: the planner's process makes it of a profile, the daemon receives it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:  # the daemon has boards, but reads no profiles
    from edged.hardware.schema import Cooling, Profile

_DEFAULT_COOLING: Final = "bare"


@dataclass(frozen=True)
class Point:
    """What the board draws and does with this many threads at full clock; 0 threads is idle.

    ``decode`` and ``prefill`` are speeds relative to the fastest.
    """

    threads: int
    watts: float
    decode: float
    prefill: float


@dataclass(frozen=True)
class Stage:
    """One RC stage between chip and air: kelvin a watt, and its time constant."""

    r_k_per_w: float
    tau_s: float


@dataclass(frozen=True)
class Measured:
    """One number of threads as `edged bench --save` found it; speeds in tokens a second."""

    threads: int
    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    watts: float | None = None


GENERIC_STAGES: Final = (Stage(2.0, 12.0), Stage(5.0, 300.0))
GENERIC_WORST_R_K_PER_W: Final = 10.0
GENERIC_IDLE_W: Final = 3.0
GENERIC_BUSY_W: Final = 10.0
GENERIC_DECODE_EXPONENT: Final = 0.5
"""Of a machine without figures of its own: assumed. Only their proportions matter, since the
observer's offset and the regulation take in what is wrong with them."""


@dataclass(frozen=True)
class Board:
    """A machine's heat, as far as its profile knows it.

    ``limit_c`` is where edged keeps the temperature below; ``None`` where nothing is governed
    until a passive trip point is read. ``worst_r_k_per_w`` is of the worst cooling that the
    profile knows. ``is_governed`` is false where a driver regulates by itself.
    """

    zone: str | None
    limit_c: float | None
    critical_c: float | None
    stages: tuple[Stage, Stage]
    worst_r_k_per_w: float
    points: tuple[Point, ...]
    min_mhz: int | None = None
    max_mhz: int | None = None
    is_governed: bool = True

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> Self:
        """What ``dataclasses.asdict`` made of one, after JSON. Raises ``TypeError``."""
        inner, outer = (Stage(**each) for each in fields.pop("stages"))
        points = tuple(Point(**each) for each in fields.pop("points"))
        return cls(stages=(inner, outer), points=points, **fields)


def board_of(
    profile: "Profile",
    *,
    cores: int,
    limit_c: float | None = None,
    measured: Sequence[Measured] = (),
) -> Board:
    """What a profile says of its board's heat; ``limit_c`` is the operator's, if lower.

    Which of a profile's coolings a board has, nobody says: the observer's offset takes in the
    difference, and where nothing can be read the worst is reckoned with.
    """
    thermal = profile.thermal
    coolings = thermal.cooling if thermal else {}
    known = coolings.get(_DEFAULT_COOLING) or next(iter(coolings.values()), None)
    limits = [limit_c, (thermal.soft_c or thermal.act_c) if thermal else None]
    worst = [sum(stage.r_k_per_w for stage in each.stages) for each in coolings.values()]
    return Board(
        zone=thermal.zone if thermal else None,
        limit_c=min((each for each in limits if each is not None), default=None),
        critical_c=thermal.critical_c if thermal else None,
        stages=_stages(known) if known else GENERIC_STAGES,
        worst_r_k_per_w=max(worst, default=GENERIC_WORST_R_K_PER_W),
        points=_measured(_points(profile, cores), measured),
        min_mhz=profile.cpu.min_mhz,
        max_mhz=profile.cpu.max_mhz,
        is_governed=thermal is None or thermal.zone != "nvml",
    )


def _stages(cooling: "Cooling") -> tuple[Stage, Stage]:
    """The first and the last; where there is one, the inner resists nothing."""
    inner, outer = cooling.stages[0], cooling.stages[-1]
    inner_r = inner.r_k_per_w if len(cooling.stages) > 1 else 0.0
    return Stage(inner_r, inner.tau_s), Stage(outer.r_k_per_w, outer.tau_s)


def _points(profile: "Profile", cores: int) -> tuple[Point, ...]:
    if profile.operating_points:
        return tuple(
            Point(each.threads, each.watts, each.decode, each.prefill)
            for each in profile.operating_points
        )
    busy_w = GENERIC_BUSY_W - GENERIC_IDLE_W
    shares = {threads: threads / cores for threads in range(1, cores + 1)}
    return (
        Point(0, GENERIC_IDLE_W, 0.0, 0.0),
        *(
            Point(threads, GENERIC_IDLE_W + busy_w * share, share**GENERIC_DECODE_EXPONENT, share)
            for threads, share in shares.items()
        ),
    )


def _measured(points: Sequence[Point], measured: Sequence[Measured]) -> tuple[Point, ...]:
    """Speeds as they were measured; watts too, where all of them were."""
    speeds = {each.threads: each for each in measured}
    if not speeds:
        return tuple(points)
    most_decode = max(each.decode_tokens_per_s for each in measured) or 1.0
    most_prefill = max(each.prefill_tokens_per_s for each in measured) or 1.0
    # The meter of the measurement need not be the one of the profile, so they are not mixed.
    watts = {each.threads: each.watts for each in measured if each.watts is not None}
    idle = [each for each in points if each.threads == 0]
    has_watts = len(watts) == len(speeds) and all(each.watts < min(watts.values()) for each in idle)
    return (
        *idle,
        *(
            Point(
                each.threads,
                watts[each.threads] if has_watts else each.watts,
                speeds[each.threads].decode_tokens_per_s / most_decode,
                speeds[each.threads].prefill_tokens_per_s / most_prefill,
            )
            for each in points
            if each.threads in speeds
        ),
    )
