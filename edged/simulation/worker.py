"""A worker in virtual time: as edged's step loop shares its steps, but with fractions of tokens.

A board's speeds are those of a Phi-3-mini in 4 bits on a Raspberry Pi 5: decoding by what has been
published (4.6 tokens/s), reading prompts assumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edged.simulation.workloads import Job, Source

DECODE_TOKENS_PER_S: Final = 4.6
PREFILL_TOKENS_PER_S: Final = 15.0
SLOTS: Final = 2
CHUNK_S: Final = 0.25
"""How long a step may read while others are being answered."""
CHUNK_STEP_TOKENS: Final = 4
_NOTHING: Final = 1e-9


@dataclass(frozen=True)
class Flow:
    """How the board works now: speeds relative to the fastest, and the share of the time."""

    watts: float
    decode: float
    prefill: float
    duty: float = 1.0


class VirtualWorker:
    """Prompts on two slots, the highest priority first; counts what it did."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.now_s = 0.0
        self.tokens = 0.0
        """Generated."""
        self.prefill_tokens = 0.0
        self.first_tokens_s: list[float] = []
        """Of each prompt that somebody waited for: from asking to its first token."""
        self._sources = sources
        self._owners: dict[Job, Source] = {}
        self._queue: list[Job] = []
        self._running: list[Job] = []

    @property
    def queued(self) -> int:
        """Prompts that wait."""
        return len(self._queue) + sum(source.backlog for source in self._sources)

    @property
    def reading(self) -> int:
        """Prompts without a first token, on a slot."""
        return sum(1 for job in self._running if job.unread > 0)

    @property
    def answering(self) -> int:
        """Prompts whose answer has begun."""
        return len(self._running) - self.reading

    def begin(self) -> None:
        """Take what has been asked by now, and start what there is a slot for."""
        for source in self._sources:
            while source.next_s() <= self.now_s:
                job = source.ask()
                self._owners[job] = source
                self._queue.append(job)
        while self._queue and len(self._running) < SLOTS:
            job = min(self._queue, key=lambda each: (-each.priority, each.asked_s))
            self._queue.remove(job)
            self._running.append(job)

    def work(self, most_s: float, flow: Flow) -> float:
        """Until something begins or ends, ``most_s`` at the most; returns how long that was."""
        answering = [job for job in self._running if job.unread <= 0]
        readers = [job for job in self._running if job.unread > 0]
        reader = min(readers, key=lambda each: (-each.priority, each.asked_s), default=None)
        read_per_s, answer_per_s = rates(flow, len(answering), is_reading=reader is not None)
        took_s = min(most_s, *(source.next_s() - self.now_s for source in self._sources))
        if reader is not None and read_per_s > 0:
            took_s = min(took_s, reader.unread / read_per_s)
        if answer_per_s > 0:
            took_s = min([took_s, *(job.unanswered / answer_per_s for job in answering)])
        self.now_s += took_s
        if reader is not None:
            self._read(reader, read_per_s * took_s)
        for job in answering:
            self._answer(job, answer_per_s * took_s)
        return took_s

    def _read(self, job: Job, tokens: float) -> None:
        self.prefill_tokens += tokens
        job.unread -= tokens
        if job.unread > _NOTHING:
            return
        job.unread = 0.0
        if job.is_awaited:
            self.first_tokens_s.append(self.now_s - job.asked_s)
        self._answer(job, 1.0)  # the first token falls out of the last step of reading

    def _answer(self, job: Job, tokens: float) -> None:
        self.tokens += tokens
        job.unanswered -= tokens
        if job.unanswered <= _NOTHING:
            self._running.remove(job)
            self._owners.pop(job).ended(job, self.now_s)


def rates(flow: Flow, answering: int, *, is_reading: bool) -> tuple[float, float]:
    """Tokens a second that are read, and of each answer.

    A step gives each answer a token. It takes as long as the weights take to be read from memory,
    or as long as its tokens take to compute, whichever is longer.
    """
    compute_per_s = PREFILL_TOKENS_PER_S * flow.prefill
    if flow.duty <= 0 or compute_per_s <= 0:
        return 0.0, 0.0
    if not answering:
        return (compute_per_s * flow.duty, 0.0) if is_reading else (0.0, 0.0)
    chunk = 0
    if is_reading:
        steps = math.floor(CHUNK_S * compute_per_s) // CHUNK_STEP_TOKENS
        chunk = max(1, steps) * CHUNK_STEP_TOKENS
    memory_s = 1 / (DECODE_TOKENS_PER_S * flow.decode) if flow.decode > 0 else math.inf
    step_s = max(memory_s, (chunk + answering) / compute_per_s)
    return chunk / step_s * flow.duty, flow.duty / step_s
