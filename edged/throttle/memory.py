"""How memory is given back when it becomes scarce: one step after another, and back again.

    reading ─► marks, fall (watermarks) ─► what is called for (memory_pressure) ─► step

Pure: readings, what the daemon knows of the moment and the time go in, a decision comes out.
"""

import math
from dataclasses import dataclass
from typing import Final

from edged.messages import Level, MemoryReading
from edged.throttle.memory_pressure import STALLED_SHARE, Gauge, Pressure, Step, Usage
from edged.throttle.watermarks import MIB

__all__ = ["MemoryDecision", "MemoryGovernor", "Step", "Usage"]

STEP_S: Final = 2.0
"""Before the next step is taken, so that the last has time to show."""
BACK_S: Final = 10.0
"""How long it must have been better before a step is taken back."""
SHRINK_EVERY_S: Final = 600.0
SMALLEST_CTX: Final = 512
"""Tokens; a context that is no longer is not shortened."""
IDLE_S: Final = 2.0
"""Without a prompt for so long is idle: some clients ask again as soon as they are answered."""
FEWER_WIDTH: Final = 1
LONG_SHARE: Final = 4
"""A prompt is long that fills more than this part of the context."""
_BACK_AGAIN: Final = Step.ADMIT_FEWER
"""Where it goes on after the model was unloaded: long prompts that were interrupted must run."""


@dataclass(frozen=True)
class MemoryDecision:
    """What to do until the next one.

    ``reason`` is a sentence, and stays the same as long as the step does; empty where all is well.
    ``width`` is how many prompts are answered at once, ``max_prompt_tokens`` how long one may be
    that comes now; ``None`` leaves these as they are.
    """

    step: Step
    level: Level
    reason: str
    width: int | None
    max_prompt_tokens: int | None
    since_s: float


class MemoryGovernor:
    """Of one daemon; ``decide`` is called twice a second."""

    def __init__(self, *, keep_alive_s: float | None = None) -> None:
        """``keep_alive_s`` without a prompt, and the model is unloaded; ``None``: never."""
        self._keep_alive_s = keep_alive_s
        self._gauge = Gauge()
        self._step = Step.NONE
        self._is_resting = False
        """Unloaded for want of prompts, not of memory."""
        self._reason = ""
        self._since_s: float | None = None
        self._stepped_s = -math.inf
        self._better_since_s: float | None = None
        self._shrunk_s = -math.inf
        self._was_loaded = False

    def decide(self, reading: MemoryReading | None, usage: Usage, now_s: float) -> MemoryDecision:
        """Never raises. While a model is loaded, and where no reading came, the step stays."""
        if self._since_s is None:
            self._since_s = now_s
        is_new = usage.is_loaded and not self._was_loaded
        self._was_loaded = usage.is_loaded
        if usage.is_loading or is_new:
            self._gauge.await_load(reading)
        if usage.is_loading:
            self._better_since_s = None
            return self._decision(usage)
        is_kept = usage.is_loaded and self._step < Step.UNLOAD_IDLE
        if is_kept:
            self._gauge.note_worker(usage, now_s)
        pressure = None
        if reading is not None:
            pressure = self._gauge.weigh(reading, usage, now_s, is_kept=is_kept)
        before = self._step, self._is_resting
        if self._is_resting:
            self._step = self._while_resting(pressure, usage)
        elif self._step >= Step.UNLOAD_IDLE:
            self._step = self._while_unloaded(pressure, usage, now_s)
        else:
            self._step = self._while_loaded(pressure, usage, now_s)
        if (self._step, self._is_resting) != before:
            self._note_change(pressure, usage, now_s, was=before[0])
        return self._decision(usage)

    def _while_loaded(self, pressure: Pressure | None, usage: Usage, now_s: float) -> Step:
        if pressure is not None and usage.is_loaded and pressure.ahead is Step.END_WORKER:
            return Step.END_WORKER
        if usage.is_loaded and self._is_out_of_use(usage, now_s):
            self._is_resting = True
            return Step.UNLOAD_IDLE
        if pressure is None:
            return self._step
        # Without a worker there is nothing to give back.
        step = self._further(pressure, usage, now_s) if usage.is_loaded else self._step
        if step > self._step:
            return step
        is_over = self._step is not Step.NONE and pressure.is_over(self._step)
        return Step(self._step - 1) if self._was_better(now_s, is_better=is_over) else self._step

    def _further(self, pressure: Pressure, usage: Usage, now_s: float) -> Step:
        """The next step, if it is called for and may be taken now."""
        step = self._step
        if now_s - self._stepped_s >= STEP_S and pressure.called > step:
            step = Step(step + 1)
            if step is Step.SHRINK_CONTEXT and not self._may_shrink(usage, now_s):
                step = Step.UNLOAD_IDLE
            may_unload = _is_idle(usage) and pressure.called is Step.UNLOAD_IDLE
            if step is Step.UNLOAD_IDLE and not may_unload:
                step = self._step
        if pressure.is_fast:
            step = max(step, min(pressure.ahead, Step.REFUSE_LONG))
        return step

    def _may_shrink(self, usage: Usage, now_s: float) -> bool:
        is_long = usage.ctx is not None and usage.ctx > SMALLEST_CTX
        return is_long and not usage.active and now_s - self._shrunk_s >= SHRINK_EVERY_S

    def _while_resting(self, pressure: Pressure | None, usage: Usage) -> Step:
        if not usage.is_wanted:
            return Step.UNLOAD_IDLE
        self._is_resting = False
        return Step.NONE if pressure is None or pressure.has_room else Step.END_WORKER

    def _while_unloaded(self, pressure: Pressure | None, usage: Usage, now_s: float) -> Step:
        if pressure is None:
            return self._step
        was_better = self._was_better(now_s, is_better=pressure.has_room)
        if not pressure.has_room:
            is_late = usage.is_loaded and pressure.ahead is Step.END_WORKER
            return Step.END_WORKER if usage.is_wanted or is_late else self._step
        if self._step is Step.UNLOAD_IDLE and usage.is_wanted:
            return _BACK_AGAIN
        if was_better and self._is_out_of_use(usage, now_s):
            self._is_resting = True
            return Step.UNLOAD_IDLE
        return _BACK_AGAIN if was_better else self._step

    def _is_out_of_use(self, usage: Usage, now_s: float) -> bool:
        """Whether the model is to be unloaded for want of prompts; the time of loading is none."""
        if self._keep_alive_s is None or usage.is_wanted:
            return False
        return min(usage.idle_s, self._gauge.ready_for_s(now_s)) >= self._keep_alive_s

    def _was_better(self, now_s: float, *, is_better: bool) -> bool:
        """Whether it has been so for long enough."""
        if not is_better:
            self._better_since_s = None
            return False
        if self._better_since_s is None:
            self._better_since_s = now_s
        return now_s - self._better_since_s >= BACK_S

    def _note_change(
        self, pressure: Pressure | None, usage: Usage, now_s: float, *, was: Step
    ) -> None:
        self._since_s = self._stepped_s = now_s
        self._better_since_s = None
        if self._step is Step.SHRINK_CONTEXT:
            self._shrunk_s = now_s
        if self._is_resting:
            self._reason = (
                f"no prompt came for {self._keep_alive_s:g} s, and the model was unloaded; the "
                "next one loads it again"
            )
        elif self._step is Step.NONE or pressure is None:
            self._reason = ""
        else:
            cause = _cause(pressure, is_worse=self._step > was)
            self._reason = f"{cause}: {_consequence(self._step, pressure, usage)}"

    def _decision(self, usage: Usage) -> MemoryDecision:
        assert self._since_s is not None
        step = self._step
        is_short = step >= Step.REFUSE_LONG and usage.ctx is not None
        return MemoryDecision(
            step=step,
            level="nominal" if self._is_resting else _level(step),
            reason=self._reason,
            width=FEWER_WIDTH if step >= Step.ADMIT_FEWER else None,
            max_prompt_tokens=_longest_tokens(usage) if is_short else None,
            since_s=self._since_s,
        )


def _is_idle(usage: Usage) -> bool:
    return not usage.is_wanted and usage.idle_s >= IDLE_S


def _level(step: Step) -> Level:
    if step is Step.END_WORKER:
        return "paused"
    if step >= Step.SHRINK_CONTEXT:
        return "throttled"
    return "nominal" if step is Step.NONE else "trimmed"


def _longest_tokens(usage: Usage) -> int:
    return (usage.ctx or 0) // LONG_SHARE


def _cause(pressure: Pressure, *, is_worse: bool) -> str:
    left = f"{_mib(pressure.available_bytes)} of memory were left ({pressure.limited_by})"
    if not is_worse:
        return f"{left}, and more is coming back"
    if pressure.is_fast:
        return f"{left}, and {_mib(int(pressure.fall_bytes_per_s))} less each second"
    if pressure.stalled_share >= STALLED_SHARE:
        return f"{left}, and work waited for it {pressure.stalled_share:.0%} of the time"
    return left


def _consequence(step: Step, pressure: Pressure, usage: Usage) -> str:
    room = _mib(pressure.room_bytes)
    return {
        Step.FORGET_PREFIXES: "what is kept for prompts that may come is forgotten",
        Step.ADMIT_FEWER: "prompts are answered one at a time",
        Step.REFUSE_LONG: f"prompts of more than {_longest_tokens(usage)} tokens are refused",
        Step.SHRINK_CONTEXT: "the model is loaded again with a shorter context",
        Step.UNLOAD_IDLE: f"nobody needed the model, and it is unloaded until {room} are available",
        Step.END_WORKER: f"the model is unloaded, and prompts wait until {room} are available",
    }[step]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.0f} MiB"
