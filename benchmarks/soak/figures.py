"""From samples and terminals to figures, and to what is right and what is not. Pure."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.soak.ledger import Entry, Ledger
from benchmarks.soak.processes import Process
from benchmarks.soak.requests import SLOTS
from benchmarks.soak.run import Sample, Soak

ALLOWED_CHANGE = 0.01
WARM_UP_SHARE = 0.1
WARM_UP_MIN_S = 60.0
"""In a run of some minutes, the daemon still fills CPython's cache of attribute look-ups: paho and
json make new strings to look up in every packet, of which it keeps 4,096. That is 2 MiB in the
first 3,000 prompts, and 0.6 % in the 15,000 after them."""
FIFTHS = 5


@dataclass(frozen=True)
class Span:
    """Medians of the first and last fifths of the time after the warm-up, and the most in it."""

    first: float
    last: float
    most: float

    @property
    def change(self) -> float:
        """Of the last against the first."""
        return self.last / self.first - 1 if self.first else 0.0


@dataclass(frozen=True)
class Held:
    """What a process held in the course of time, in bytes where it is memory."""

    name: str
    resident: Span
    anonymous: Span
    proportional: Span
    descriptors: Span
    threads: Span


@dataclass(frozen=True)
class Check:
    """A figure and its limit, in words."""

    name: str
    seen: str
    limit: str
    holds: bool


def warm_up_s(seconds: float) -> float:
    """How much of the beginning is not looked at."""
    return max(WARM_UP_MIN_S, WARM_UP_SHARE * seconds)


def held(samples: Sequence[Sample], seconds: float) -> list[Held]:
    """Of every process that was there from the warm-up to the end; empty for too short a run."""
    judged = [sample for sample in samples if sample.at_s >= warm_up_s(seconds)]
    if len(judged) < FIFTHS:
        return []
    names = [n for n in judged[0].processes if all(n in sample.processes for sample in judged)]
    return [_held(name, [sample.processes[name] for sample in judged]) for name in names]


def _held(name: str, seen: list[Process]) -> Held:
    def span(figure: Callable[[Process], float]) -> Span:
        values = [figure(each) for each in seen]
        fifth = len(values) // FIFTHS
        return Span(median(values[:fifth]), median(values[-fifth:]), max(values))

    return Held(
        name=name,
        resident=span(lambda each: each.resident_bytes),
        anonymous=span(lambda each: each.anonymous_bytes),
        proportional=span(lambda each: each.proportional_bytes),
        descriptors=span(lambda each: each.descriptors),
        threads=span(lambda each: each.threads),
    )


def cpu_share(samples: Sequence[Sample], cores: int) -> float:
    """Of all cores, what the daemon and its processes used."""
    first, last = samples[0], samples[-1]
    used_s = sum(
        process.cpu_s - (first.processes[name].cpu_s if name in first.processes else 0.0)
        for name, process in last.processes.items()
    )
    return used_s / max(last.at_s - first.at_s, 1e-9) / cores


def ends_by_kind(ledger: Ledger) -> dict[str, Counter[str]]:
    """How the prompts of each kind ended; a prompt that never started is told apart."""
    found: dict[str, Counter[str]] = {}
    for entry in ledger.entries.values():
        end = entry.end or "open"
        if end == "cancelled" and entry.reply["type"] == "failed":
            end = "cancelled unstarted"
        found.setdefault(entry.request.kind, Counter())[end] += 1
    return found


def usages(ledger: Ledger, kind: str | None = None) -> list[dict[str, int]]:
    """Token counts of the prompts that were answered."""
    return [
        entry.reply["usage"]
        for entry in ledger.entries.values()
        if "usage" in entry.reply and kind in (None, entry.request.kind)
    ]


def checks(found: Soak) -> list[Check]:
    """What the soak is for, in the order of importance; behaviour first, then what was held."""
    return [*behaviour(found), *memory(found)]


def behaviour(found: Soak) -> list[Check]:
    """What holds however short the run was."""
    faults = found.ledger.faults()
    asked = found.ledger.asked
    with_schema = [e for e in found.ledger.entries.values() if _is_json(e) and e.end == "stop"]
    conversations = usages(found.ledger, "conversation")
    cached = sum(usage["cached_tokens"] > 0 for usage in conversations)
    state = "idle" if found.is_idle_at_end else "busy"
    return [
        Check(
            "prompts with exactly one terminal, as it had to be",
            f"{asked - len(faults)} of {asked}",
            "all",
            not faults,
        ),
        Check(
            "answers under a schema that hold to it",
            f"{sum(e.fault() is None for e in with_schema)} of {len(with_schema)}"
            if found.has_schemas
            else "this version has no schemas",
            "all",
            all(entry.fault() is None for entry in with_schema),
        ),
        Check(
            "conversations that began from a cached prefix",
            f"{cached} of {len(conversations)}",
            "some",
            cached > 0,
        ),
        Check("worker processes", str(len(found.worker_pids)), "1", len(found.worker_pids) == 1),
        Check("state after the last prompt", state, "idle", found.is_idle_at_end),
        Check(
            "prompts answered at once afterwards",
            str(found.answered_at_once),
            str(SLOTS),
            found.answered_at_once == SLOTS,
        ),
    ]


def memory(found: Soak) -> list[Check]:
    """What was held after the warm-up."""
    result = []
    for each in held(found.samples, found.traffic_s):
        change = each.resident.change
        result.append(
            Check(
                f"resident memory of the {each.name}",
                f"{100 * change:+.2f} %",
                f"within {100 * ALLOWED_CHANGE:g} %",
                abs(change) <= ALLOWED_CHANGE,
            )
        )
        result += [
            Check(
                f"{what} of the {each.name}",
                f"{span.first:g}, then {span.last:g}",
                "not more",
                span.last <= span.first,
            )
            for what, span in (("open files", each.descriptors), ("threads", each.threads))
        ]
    return result


def _is_json(entry: Entry) -> bool:
    return "response_format" in entry.request.body
