"""The storm's outcome for people, and as JSON for machines."""

import os
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.chaos.storm import Storm, most_bytes, peaks_bytes
from edged.hardware.machine import read_machine

MB = 1e6


def conditions(load_before: float) -> dict[str, Any]:
    """What it ran on."""
    machine = read_machine()
    return {
        "cpu": machine.cpu_model,
        "cores": machine.cores,
        "python": platform.python_version(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def show(console: Console, found: Storm, where: dict[str, Any]) -> None:
    """Everything, the violations last."""
    console.print(_faults(found))
    for kind, why in found.left_out.items():
        console.print(f"left out: {kind} ({why})", style="yellow", highlight=False)
    console.print(_figures(found))
    console.print(_memory(found))
    for violation in found.verdict.violations:
        client, prompt_id = violation.key
        console.print(
            f"BROKEN: {violation.promise}: {client}/{prompt_id}: {violation.words}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{len(found.verdict.violations)} promises broken; seed {found.plan.seed}; "
        "{cpu}, {cores} cores, Python {python}; load average {load_before:.1f} before, "
        "{load_after:.1f} after".format_map(where),
        highlight=False,
        soft_wrap=True,
    )


def _faults(found: Storm) -> Table:
    table = Table(title="Faults", box=MARKDOWN)
    table.add_column("fault")
    table.add_column("times", justify="right")
    table.add_column("seconds, all together", justify="right")
    for kind, count in Counter(each.kind for each in found.happened).items():
        lasted_s = sum(e.ended_s - e.began_s for e in found.happened if e.kind == kind)
        table.add_row(kind, str(count), f"{lasted_s:.0f}")
    return table


def _figures(found: Storm) -> Table:
    verdict = found.verdict
    table = Table(title=f"{found.seconds / 60:.1f} minutes", box=MARKDOWN)
    table.add_column("figure")
    table.add_column("seen", justify="right")
    asked = found.plan.prompts
    restarted = sum(life.name == "daemon" for life in found.lives) - 1
    rows = {
        "prompts with one result": f"{verdict.results} of {asked}",
        "the same text as undisturbed": f"{verdict.same_texts}",
        "another text, from a tie on": f"{len(verdict.ties)}",
        "published by clients": f"{sum(ask.publishes for ask in found.asks)}",
        "refused for the moment": ", ".join(
            f"{code} {count}" for code, count in sorted(verdict.refusals.items())
        )
        or "0",
        "given to the worker": f"{verdict.executions}",
        "prompts given to it more than once": f"{verdict.executed_again} "
        f"(at most {verdict.most_executions} times)",
        "results that came more than once": f"{verdict.repeated_results}",
        "asked once more at the end, answered": f"{found.answered_again} of {asked}",
        "streams without a gap": f"{verdict.whole_streams} of {verdict.results}",
        "daemon started anew": f"{restarted} ({found.full_ends} times there was no room to start)",
        "workers": f"{sum(life.name == 'worker' for life in found.lives)}",
        "from the last fault to the last result": f"{found.calm_s:.0f} s",
        "from publish to accepted, s": spread(latencies(found, "accepted_s")),
        "from publish to result, s": spread(latencies(found, "ended_s")),
        "spool.db at the end": f"{found.spool_bytes / MB:.2f} MB",
        "promises broken": f"{len(verdict.violations)}",
    }
    for name, seen in rows.items():
        table.add_row(name, seen)
    return table


def _memory(found: Storm) -> Table:
    table = Table(title="Resident at most in each life, MB", box=MARKDOWN)
    for column in (
        "process",
        "lives",
        "first half: median, most",
        "second half: median, most",
        "all asked again, most",
    ):
        table.add_column(column, justify="right")
    for name in ("daemon", "worker"):
        peaks = peaks_bytes(found.lives, name)
        half = len(peaks) // 2
        halves = (_median_and_most(peaks[:half]), _median_and_most(peaks[half:]))
        most = f"{most_bytes(found.lives, name) / MB:.1f}"
        table.add_row(name, str(len(peaks)), *halves, most)
    return table


def _median_and_most(peaks: Sequence[int]) -> str:
    if not peaks:
        return "-"
    return f"{statistics.median(peaks) / MB:.1f}, {max(peaks) / MB:.1f}"


def latencies(found: Storm, until: str) -> list[float]:
    """Of each prompt, from its first publish on, in seconds."""
    return sorted(
        end_s - ask.first_s
        for ask in found.asks
        if ask.first_s is not None and (end_s := getattr(ask, until)) is not None
    )


def spread(values: Sequence[float]) -> str:
    """Median, 95th percentile and most."""
    if not values:
        return "-"
    middle, high = values[len(values) // 2], values[int(0.95 * (len(values) - 1))]
    return f"median {middle:.2f}, 95 % {high:.1f}, most {values[-1]:.1f}"


def as_json(found: Storm, where: dict[str, Any]) -> dict[str, Any]:
    """All of it but the messages."""
    counts = {name: dict(getattr(found.verdict, name)) for name in ("refusals", "messages")}
    verdict = asdict(replace(found.verdict, refusals=Counter(), messages=Counter())) | counts
    return {
        "conditions": where,
        "plan": asdict(found.plan),
        "left_out": found.left_out,
        "seconds": round(found.seconds, 1),
        "calm_s": round(found.calm_s, 1),
        "faults": [
            asdict(each) | {"at_s": round(each.began_s - found.began_s, 1)}
            for each in found.happened
        ],
        "verdict": verdict,
        "answered_again": found.answered_again,
        "spool_bytes": found.spool_bytes,
        "accepted_s": [round(each, 3) for each in latencies(found, "accepted_s")],
        "ended_s": [round(each, 3) for each in latencies(found, "ended_s")],
        "lives": [asdict(life) for life in found.lives],
    }
