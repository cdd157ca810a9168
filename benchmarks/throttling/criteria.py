"""What the governor must reach in each cell."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.throttling.cells import Cell
from edged.simulation.results import Results

SUBJECT = "governor"
ORACLE = "oracle"


@dataclass(frozen=True)
class Goals:
    """``None`` is not asked for."""

    soft_s: float
    hard_s: float
    of_oracle: float
    """On the steady load."""
    of_others: float | None
    """Tokens ÷ those of any other policy that stays within the limit, but the oracle."""
    voice_p95: float | None
    """First token on the voice load ÷ that of a machine that never heats."""


GOALS = Goals(soft_s=0, hard_s=0, of_oracle=0.97, of_others=0.995, voice_p95=1.05)
ROBUST_GOALS = Goals(soft_s=30, hard_s=0, of_oracle=0.92, of_others=None, voice_p95=None)


def judge(results: dict[Cell, Results], goals: Goals) -> dict[Cell, list[str]]:
    """Of each cell of the governor, what it misses, in words."""
    return {cell: list(_misses(cell, results, goals)) for cell in results if cell.policy == SUBJECT}


def _misses(cell: Cell, results: dict[Cell, Results], goals: Goals) -> Iterator[str]:
    ours = results[cell]
    if ours.seconds_above_limit > goals.soft_s:
        yield f"{ours.seconds_above_limit:g} s above the limit"
    if ours.seconds_above_hard > goals.hard_s:
        yield f"{ours.seconds_above_hard:g} s above the hard limit"
    oracle = results.get(cell.of_policy(ORACLE))
    if oracle is not None and cell.scenario.workload == "steady":
        share = ours.tokens / oracle.tokens
        if share < goals.of_oracle:
            yield f"{share:.3f} of the oracle"
    if goals.of_others is not None:
        rival = best_rival(cell, results)
        if rival is not None and ours.tokens < goals.of_others * rival.tokens:
            yield f"{ours.tokens / rival.tokens:.3f} of {rival.policy}"
    if goals.voice_p95 is not None and cell.scenario.workload == "voice":
        yield from _late(ours, goals.voice_p95)


def _late(ours: Results, most: float) -> Iterator[str]:
    found, cold = ours.first_token_s, ours.unthrottled_first_token_s
    if cold is None:
        return
    if found is None:
        yield "no first token"
    elif found.p95 > most * cold.p95:
        yield f"first token {found.p95 / cold.p95:.2f} of an unthrottled machine's"


def best_rival(cell: Cell, results: dict[Cell, Results]) -> Results | None:
    """The one with the most tokens of those that stay within the limit."""
    others = [
        found
        for other, found in results.items()
        if other.scenario == cell.scenario and other.policy not in (SUBJECT, ORACLE)
    ]
    within = [found for found in others if not found.seconds_above_limit]
    return max(within, key=lambda found: found.tokens, default=None)
