"""What a simulation has shown."""

from dataclasses import dataclass, field
from typing import Any

from edged.messages import Level
from edged.simulation.scenario import Scenario


@dataclass(frozen=True)
class Percentiles:
    """Of times in seconds."""

    p50: float
    p95: float


@dataclass
class Series:
    """Twice a second: for plots."""

    minutes: list[float] = field(default_factory=list)
    true_c: list[float] = field(default_factory=list)
    sensed_c: list[float | None] = field(default_factory=list)
    clock_mhz: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """One policy in one scenario.

    Times above limits are those of the true temperature; ``levels`` are seconds in each.
    ``first_token_s`` is of the prompts that somebody waited for, ``None`` where none was begun.
    """

    scenario: Scenario
    policy: str
    limit_c: float
    tokens: float
    prefill_tokens: float
    seconds_above_limit: float
    seconds_above_hard: float
    peak_c: float
    joules: float
    first_tokens: int
    first_token_s: Percentiles | None
    unthrottled_first_token_s: Percentiles | None
    levels: dict[Level, float]
    series: Series = field(default_factory=Series, repr=False, compare=False)

    @property
    def tokens_per_joule(self) -> float:
        return self.tokens / self.joules

    def as_json(self, oracle_tokens: float | None) -> dict[str, Any]:
        """All but the series."""
        scenario = self.scenario
        return {
            "profile": scenario.profile,
            "case": scenario.case,
            "ambient": scenario.ambient,
            "policy": self.policy,
            "workload": scenario.workload,
            "minutes": scenario.minutes,
            "seed": scenario.seed,
            "clock": scenario.has_clock,
            "structure": scenario.structure,
            "limit_c": self.limit_c,
            "tokens": round(self.tokens, 1),
            "oracle_tokens": None if oracle_tokens is None else round(oracle_tokens, 1),
            "prefill_tokens": round(self.prefill_tokens, 1),
            "seconds_above_limit": self.seconds_above_limit,
            "seconds_above_hard": self.seconds_above_hard,
            "peak_c": round(self.peak_c, 2),
            "joules": round(self.joules, 1),
            "tokens_per_joule": round(self.tokens_per_joule, 4),
            "first_tokens": self.first_tokens,
            "first_token_s": _as_json(self.first_token_s),
            "unthrottled_first_token_s": _as_json(self.unthrottled_first_token_s),
            "levels": self.levels,
        }


def percentiles(values_s: list[float]) -> Percentiles | None:
    """``None`` of nothing."""
    if not values_s:
        return None
    return Percentiles(_quantile(values_s, 0.5), _quantile(values_s, 0.95))


def _quantile(values: list[float], share: float) -> float:
    """Interpolated between the two nearest."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])


def _as_json(found: Percentiles | None) -> dict[str, float] | None:
    return None if found is None else {"p50": round(found.p50, 3), "p95": round(found.p95, 3)}
