"""The soak's results for people, and as JSON for machines."""

import itertools
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.bus import Node
from benchmarks.soak.clients import AWAY_S
from benchmarks.soak.figures import (
    Check,
    Span,
    cpu_share,
    ends_by_kind,
    held,
    usages,
    warm_up_s,
)
from benchmarks.soak.requests import CTX
from benchmarks.soak.run import NAMES, Soak
from edged.hardware.machine import read_machine

MIB = 2**20
LINE_CHARACTERS = 60
LEVELS = "▁▂▃▄▅▆▇█"
LEAST_HEIGHT = 0.04
"""Of the most: a line that is flat within 1 % must look flat."""
SHOWN_FAULTS = 10


def conditions(node: Node, load_before: float) -> dict[str, Any]:
    """What it ran on, and with which model."""
    machine = read_machine()
    told = ("engine", "model", "quant", "ctx", "slots", "kv_type", "version")
    return {
        "cpu": machine.cpu_model,
        "cores": machine.cores,
        "python": platform.python_version(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        **{name: node.card[name] for name in told},
    }


def show(console: Console, found: Soak, checks: list[Check], where: dict[str, Any]) -> None:
    """Everything, the verdict last."""
    console.print(traffic_table(found))
    console.print(traffic_words(found, where), highlight=False, soft_wrap=True)
    if held(found.samples, found.traffic_s):
        console.print(memory_table(found))
    for name in found.samples[-1].processes:
        seen = [s.processes[name].resident_bytes for s in found.samples if name in s.processes]
        console.print(
            f"{name:>15} {min(seen) / MIB:7.2f} to {max(seen) / MIB:7.2f} MiB {sparkline(seen)}",
            highlight=False,
            soft_wrap=True,
        )
    if checks:
        console.print(check_table(checks))
    for fault in found.ledger.faults()[:SHOWN_FAULTS] if not found.is_interrupted else ():
        console.print(fault, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(
        "{engine}, {model} {quant}, {slots} slots of {ctx} tokens, cache {kv_type}; {cpu}, "
        "{cores} cores, Python {python}; load average {load_before:.1f} before, {load_after:.1f} "
        "after".format_map(where),
        highlight=False,
        soft_wrap=True,
    )


def traffic_table(found: Soak) -> Table:
    """Kinds of prompts, and how they ended."""
    by_kind = ends_by_kind(found.ledger)
    ends = sorted({end for counts in by_kind.values() for end in counts})
    table = Table(title="Prompts and their ends", box=MARKDOWN)
    table.add_column("kind")
    for end in ("asked", *ends):
        table.add_column(end.replace("_", " "), justify="right")
    for kind, counts in sorted(by_kind.items()):
        table.add_row(kind, str(counts.total()), *(str(counts[end] or "") for end in ends))
    return table


def traffic_words(found: Soak, where: dict[str, Any]) -> str:
    """How much there was of it."""
    ledger, seconds = found.ledger, max(found.traffic_s, 1e-9)
    answered = usages(ledger)
    tokens = sum(usage["completion_tokens"] for usage in answered)
    read = sum(usage["prompt_tokens"] for usage in answered)
    cached = sum(usage["cached_tokens"] for usage in answered)
    longest = max((usage["prompt_tokens"] for usage in answered), default=0)
    did = ", ".join(f"{name} {count}" for name, count in sorted(ledger.did.items()))
    share = 100 * cpu_share(found.samples, where["cores"])
    return (
        f"{ledger.asked} prompts in {seconds / 60:.1f} minutes by {len(NAMES)} clients "
        f"({ledger.asked / seconds:.1f} a second; {ledger.unnamed_asked} without an id, "
        f"{sum(e.repeats for e in ledger.entries.values())} terminals repeated)\n"
        f"{did}; up to {found.most_active} answered at once; away for {AWAY_S[0]:g} to "
        f"{AWAY_S[1]:g} s\n"
        f"{tokens} tokens answered ({tokens / seconds:.0f} a second), {read} read, {cached} of "
        f"them from the cache; longest prompt {longest} of {CTX} tokens\n"
        f"daemon and worker used {share:.0f} % of {where['cores']} cores"
    )


def memory_table(found: Soak) -> Table:
    """What every process held, first and last."""
    table = Table(
        title=f"Held after {warm_up_s(found.traffic_s):.0f} s, memory in MiB",
        caption="medians of the first and the last fifth of the time, and the most",
        box=MARKDOWN,
    )
    table.add_column("process")
    columns = ("resident", "change", "anonymous", "proportional", "open files", "threads")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for each in held(found.samples, found.traffic_s):
        table.add_row(
            each.name,
            _mib(each.resident),
            f"{100 * each.resident.change:+.2f} %",
            _mib(each.anonymous),
            _mib(each.proportional),
            _numbers(each.descriptors),
            _numbers(each.threads),
        )
    return table


def check_table(checks: list[Check]) -> Table:
    """Figures and limits."""
    table = Table(title="What has to hold", box=MARKDOWN)
    table.add_column("figure")
    table.add_column("seen", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    for check in checks:
        style = "" if check.holds else "red"
        table.add_row(
            check.name, check.seen, check.limit, "yes" if check.holds else "NO", style=style
        )
    return table


def sparkline(values: Sequence[float]) -> str:
    """A line of at most ``LINE_CHARACTERS``, each the highest of what it stands for."""
    width = min(LINE_CHARACTERS, len(values))
    edges = [at * len(values) // width for at in range(width + 1)]
    tops = [max(values[begin:end]) for begin, end in itertools.pairwise(edges)]
    low, high = min(tops), max(tops)
    height = max(high - low, LEAST_HEIGHT * high, 1e-9)
    return "".join(LEVELS[int((top - low) / height * (len(LEVELS) - 1))] for top in tops)


def as_json(found: Soak, checks: list[Check], where: dict[str, Any]) -> dict[str, Any]:
    """All of it, every sample too."""
    ledger = found.ledger
    return {
        "conditions": where,
        "plan": asdict(found.plan),
        "is_interrupted": found.is_interrupted,
        "checks": [asdict(check) for check in checks],
        "held": [
            asdict(each) | {"resident_change": each.resident.change}
            for each in held(found.samples, found.traffic_s)
        ],
        "traffic": {
            "seconds": round(found.traffic_s, 1),
            "prompts": ledger.asked,
            "prompts_per_s": round(ledger.asked / max(found.traffic_s, 1e-9), 2),
            "without_id": ledger.unnamed_asked,
            "ends": {kind: dict(counts) for kind, counts in ends_by_kind(ledger).items()},
            "did": dict(ledger.did),
            "most_active": found.most_active,
            "cpu_share": round(cpu_share(found.samples, where["cores"]), 3),
            "tokens": {
                name: sum(usage[name] for usage in usages(ledger))
                for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
            },
        },
        "faults": [] if found.is_interrupted else ledger.faults(),
        "samples": [asdict(sample) for sample in found.samples],
    }


def _mib(span: Span) -> str:
    return f"{span.first / MIB:.2f}, {span.last / MIB:.2f}, {span.most / MIB:.2f}"


def _numbers(span: Span) -> str:
    return f"{span.first:g}, {span.last:g}, {span.most:g}"
