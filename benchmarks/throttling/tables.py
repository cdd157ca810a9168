"""A table for each workload, and what they amount to."""

from collections.abc import Iterator
from itertools import groupby

from rich.box import MARKDOWN
from rich.table import Table

from benchmarks.throttling.cells import Cell
from benchmarks.throttling.criteria import SUBJECT, Goals
from edged.simulation.results import Percentiles, Results

FIRMWARE_ONLY = "none"
COLUMNS = (
    *("above limit, s", "above hard, s", "hottest, °C", "first token p50, s", "p95, s"),
    *("p95 ÷ unthrottled", "tokens", "÷ oracle", "tokens/J"),
)


def tables(results: dict[Cell, Results], verdicts: dict[Cell, list[str]]) -> Iterator[Table]:
    """The governor's lines that miss something are red and say what."""
    for workload, part in groupby(results, key=lambda cell: cell.scenario.workload):
        shown = Table(title=workload, box=MARKDOWN)
        for name in ("case", "ambient, °C", "policy"):
            shown.add_column(name, no_wrap=True)
        for name in COLUMNS:
            shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column("note", no_wrap=True)
        for cell in part:
            missed = verdicts.get(cell, [])
            note = "misses: " + ", ".join(missed) if missed else _note(cell, results)
            style = "red" if missed else "bold" if cell.policy == SUBJECT else ""
            shown.add_row(*_figures(cell, results), note, style=style)
        yield shown


def conclusion(results: dict[Cell, Results], verdicts: dict[Cell, list[str]], goals: Goals) -> str:
    """In how many cells the governor reached its goals."""
    missed = sum(1 for misses in verdicts.values() if misses)
    shares = [
        results[cell].tokens / oracle.tokens
        for cell in verdicts
        if cell.scenario.workload == "steady"
        and (oracle := results.get(cell.of_policy("oracle"))) is not None
    ]
    least = f"; least of the oracle's tokens on steady load {min(shares):.3f}" if shares else ""
    return (
        f"governor: {len(verdicts) - missed} of {len(verdicts)} cells reach their goals (at most "
        f"{goals.soft_s:g} s above the limit, ≥ {goals.of_oracle:g} of the oracle){least}"
    )


def _figures(cell: Cell, results: dict[Cell, Results]) -> Iterator[str]:
    found = results[cell]
    scenario = cell.scenario
    structure = "" if scenario.structure == "assumed" else f", {scenario.structure}"
    oracle = results.get(cell.of_policy("oracle"))
    ours, cold = found.first_token_s, found.unthrottled_first_token_s
    yield f"{scenario.case}{structure}"
    yield scenario.ambient
    yield cell.policy
    yield f"{found.seconds_above_limit:g}"
    yield f"{found.seconds_above_hard:g}"
    yield f"{found.peak_c:.1f}"
    yield _seconds(ours, "p50")
    yield _seconds(ours, "p95")
    yield f"{ours.p95 / cold.p95:.2f}" if ours and cold else "–"
    yield f"{found.tokens:.0f}"
    yield "–" if oracle is None or not oracle.tokens else f"{found.tokens / oracle.tokens:.3f}"
    yield f"{found.tokens_per_joule:.3f}"


def _seconds(found: Percentiles | None, which: str) -> str:
    return "–" if found is None else f"{getattr(found, which):.2f}"


def _note(cell: Cell, results: dict[Cell, Results]) -> str:
    """Where the firmware alone wins by living above the limit, it is said."""
    governor = results.get(cell.of_policy(SUBJECT))
    found = results[cell]
    if cell.policy != FIRMWARE_ONLY or governor is None or found.tokens <= governor.tokens:
        return ""
    if not found.seconds_above_limit:
        return ""
    more = found.tokens / governor.tokens - 1
    return f"{100 * more:.1f} % more than the governor, above the limit"
