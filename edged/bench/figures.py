"""From what clients saw to figures. Pure; every time is CLOCK_MONOTONIC in seconds.

A client sees tokens arrive, one or several at a time, each arrival with the count so far. What
is measured here is therefore what the client had, not what the engine did.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Arrival:
    """``n`` tokens of the answer had arrived at this moment."""

    monotonic_s: float
    n: int


@dataclass(frozen=True)
class Added:
    """What MQTT and the daemon add to one prompt's first token, in milliseconds."""

    before_ms: float
    """Prompt published → the worker begins with its first step."""
    after_ms: float
    """First piece leaves the worker → arrives at the subscriber."""

    @property
    def total_ms(self) -> float:
        return self.before_ms + self.after_ms


@dataclass(frozen=True)
class WorkerSpeeds:
    """Of one answer by the worker's own clock, as its ``done`` message has them."""

    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None


@dataclass(frozen=True)
class Answer:
    """What one client saw of one prompt."""

    asked_s: float
    arrivals: tuple[Arrival, ...]
    done_s: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    added: Added | None = None
    """Known of edged alone, and of a prompt that was alone."""
    worker: WorkerSpeeds | None = None
    """Known of edged alone."""

    @property
    def first_token_s(self) -> float:
        """When the first token was there; an answer without text has it at its end."""
        return self.arrivals[0].monotonic_s if self.arrivals else self.done_s

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first arrival over the time from there to the end."""
        if not self.arrivals:
            return None
        tokens = self.completion_tokens - self.arrivals[0].n
        took_s = self.done_s - self.arrivals[0].monotonic_s
        return tokens / took_s if tokens > 0 and took_s > 0 else None

    @property
    def gaps_ms(self) -> list[float]:
        """Milliseconds between tokens; those that came together share the time of their arrival."""
        gaps: list[float] = []
        for before, after in zip(self.arrivals, self.arrivals[1:], strict=False):
            count = after.n - before.n
            if count > 0:
                gaps += [1000 * (after.monotonic_s - before.monotonic_s) / count] * count
        return gaps


Turn = Sequence[Answer]
"""What all clients saw of one side in one round."""


@dataclass(frozen=True)
class Spread:
    """Of a figure that was taken several times."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Gaps:
    """Milliseconds between two tokens of one answer."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Figures:
    """One side, in one round or in all of them; ``None`` where too few tokens came."""

    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    """Of one client: the median of all."""
    aggregate_tokens_per_s: float
    """Tokens answered to all clients over the whole time, reading the prompts included."""
    first_token_ms: float
    gap_ms: Gaps | None


def figures(turn: Turn) -> Figures:
    """One round of one side."""
    began_s = min(answer.asked_s for answer in turn)
    read_s = max(answer.first_token_s for answer in turn) - began_s
    took_s = max(answer.done_s for answer in turn) - began_s
    read_tokens = sum(answer.prompt_tokens - answer.cached_tokens for answer in turn)
    gaps = [gap for answer in turn for gap in answer.gaps_ms]
    return Figures(
        prefill_tokens_per_s=read_tokens / read_s if read_tokens > 0 and read_s > 0 else None,
        decode_tokens_per_s=median_of(answer.decode_tokens_per_s for answer in turn),
        aggregate_tokens_per_s=sum(answer.completion_tokens for answer in turn) / took_s,
        first_token_ms=median(1000 * (a.first_token_s - a.asked_s) for a in turn),
        gap_ms=_gaps(gaps),
    )


def overall(turns: Sequence[Turn]) -> Figures:
    """Several rounds of one side: medians of the rounds, and percentiles of all gaps together."""
    rounds = [figures(turn) for turn in turns]
    gaps = [gap for turn in turns for answer in turn for gap in answer.gaps_ms]
    return Figures(
        prefill_tokens_per_s=median_of(each.prefill_tokens_per_s for each in rounds),
        decode_tokens_per_s=median_of(each.decode_tokens_per_s for each in rounds),
        aggregate_tokens_per_s=median(each.aggregate_tokens_per_s for each in rounds),
        first_token_ms=median(each.first_token_ms for each in rounds),
        gap_ms=_gaps(gaps),
    )


def median_of(values: Iterable[float | None]) -> float | None:
    """The median of what was measured, ``None`` where nothing was."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def ratios(above: Iterable[float | None], below: Iterable[float | None]) -> Spread | None:
    """Pair by pair; ``None`` where no pair has both."""
    return spread(a / b for a, b in zip(above, below, strict=True) if a is not None and b)


def spread(values: Iterable[float]) -> Spread | None:
    """Least, median and greatest; ``None`` of nothing."""
    known = list(values)
    return Spread(min(known), median(known), max(known)) if known else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that this share of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _gaps(gaps: Sequence[float]) -> Gaps | None:
    return Gaps(percentile(gaps, 50), percentile(gaps, 99)) if gaps else None
