"""What one reading of the memory means, beside what was read before."""

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from edged.messages import MemoryReading
from edged.throttle.watermarks import Fall, Marks, marks

STALLED_SHARE: Final = 0.10
STALLED_BACK_SHARE: Final = 0.05
"""Of the time that somebody waited for memory, averaged over ten seconds."""
AFTER_LOAD_S: Final = 20.0
"""So long after a load, that average still tells of the load."""
BACK_TIMES: Final = 1.5
"""Of a step's mark: what must be available to take it back. Below it, memory is nearly low."""


class Step(IntEnum):
    """What is done about scarce memory; each step includes those before it."""

    NONE = 0
    FORGET_PREFIXES = 1
    ADMIT_FEWER = 2
    REFUSE_LONG = 3
    SHRINK_CONTEXT = 4
    """Load the model again with a shorter context."""
    UNLOAD_IDLE = 5
    END_WORKER = 6
    """At once; what it was answering is answered again when there is room."""


@dataclass(frozen=True)
class Usage:
    """What the daemon knows of the moment."""

    is_loading: bool
    """Readings say nothing then."""
    is_loaded: bool
    active: int
    """Prompts in the engine."""
    queued: int
    idle_s: float
    """Since the last prompt ended."""
    worker_bytes: int | None
    """Resident memory of the worker: what ending it gives back."""
    ctx: int | None
    """Tokens of context that it was loaded with."""
    needed_bytes: int | None
    """What a load of the planned model would need."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is being answered, or waits for it."""
        return self.active > 0 or self.queued > 0


@dataclass(frozen=True)
class Pressure:
    """What one reading means."""

    available_bytes: int
    limited_by: str
    marks: Marks
    called: Step
    """By what is available, and by who has to wait for it."""
    ahead: Step
    """By what will be available soon."""
    is_fast: bool
    fall_bytes_per_s: float
    is_pressed: bool
    """Whether work waits for memory, or a group came up against its limit."""
    stalled_share: float
    room_bytes: int
    """What must be available for the model to be loaded again."""

    @property
    def has_room(self) -> bool:
        return self.available_bytes >= self.room_bytes

    def is_over(self, step: Step) -> bool:
        """Whether nothing calls for the step any more, with something to spare."""
        is_enough = self.available_bytes >= BACK_TIMES * self.marks.of(step)
        return is_enough and not self.is_pressed and self.stalled_share < STALLED_BACK_SHARE


class Gauge:
    """Remembers what is usual with this worker, and what was read last."""

    def __init__(self) -> None:
        self._ready_s: float | None = None
        self._usual_bytes: int | None = None
        self._worker_bytes: int | None = None
        self._limit_events: int | None = None
        self._fall = Fall()

    def await_load(self, reading: MemoryReading | None) -> None:
        """All that is known of the worker before is of no use for the one to come."""
        self._fall.forget()
        self._ready_s = self._usual_bytes = self._worker_bytes = None
        if reading is not None:
            self._limit_events = reading.limit_events

    def note_worker(self, usage: Usage, now_s: float) -> None:
        """There is one, and it is to stay."""
        if self._ready_s is None:
            self._ready_s = now_s
        if usage.worker_bytes is not None:
            self._worker_bytes = max(usage.worker_bytes, self._worker_bytes or 0)

    def ready_for_s(self, now_s: float) -> float:
        """How long the model has been loaded, or might have been; infinite before the first."""
        return math.inf if self._ready_s is None else now_s - self._ready_s

    def weigh(
        self, reading: MemoryReading, usage: Usage, now_s: float, *, is_kept: bool
    ) -> Pressure:
        """``is_kept``: there is a worker, and it is to stay."""
        left = reading.available_bytes
        if is_kept:
            self._usual_bytes = max(left, self._usual_bytes or 0)
        levels = marks(reading.total_bytes, self._usual_bytes, Step.END_WORKER)
        ahead_bytes = self._fall.ahead(now_s, left, reading.limited_by)
        is_near = left < BACK_TIMES * levels.low_bytes
        is_meant = self.ready_for_s(now_s) >= AFTER_LOAD_S
        stalled_share = (reading.stalled_share or 0.0) if is_meant else 0.0
        has_hit = self._limit_events is not None and reading.limit_events > self._limit_events
        self._limit_events = reading.limit_events
        is_pressed = stalled_share >= STALLED_SHARE or (has_hit and is_near)
        called = levels.called(left)
        if is_pressed:
            # Waiting for memory does not prove that there is little; where there is, it does.
            harder = min(called + 1, Step.UNLOAD_IDLE) if is_near else Step.FORGET_PREFIXES
            called = max(called, harder)
        return Pressure(
            available_bytes=left,
            limited_by=reading.limited_by,
            marks=levels,
            called=Step(called),
            ahead=Step(levels.called(ahead_bytes)),
            is_fast=left - ahead_bytes >= levels.distance_bytes,
            fall_bytes_per_s=self._fall.bytes_per_s,
            is_pressed=is_pressed,
            stalled_share=stalled_share,
            room_bytes=self._needed_bytes(usage) + levels.low_bytes,
        )

    def _needed_bytes(self, usage: Usage) -> int:
        """As planned, or what the worker really held if that was less: plans are cautious."""
        known = [each for each in (usage.needed_bytes, self._worker_bytes) if each is not None]
        return min(known, default=0)


def told_of(reading: MemoryReading | None) -> MemoryReading | None:
    """A reading at a time when the kernel has just told of pressure, as systemd asked it to.

    By default it does so when work waited for memory a tenth of two seconds, which is our own
    share, seen sooner.
    """
    if reading is None:
        return None
    return replace(reading, stalled_share=max(reading.stalled_share or 0.0, STALLED_SHARE))
