"""The hot loop: one decode step after another over all slots.

    take commands → plan the next batch → decode it → sample, detokenise, emit

A batch holds one token for each slot that is answering, and one chunk of one prompt that
is being read. The chunk is sized to a time, so that reading a long prompt delays the
answers of others, and a cancel, by no more than that.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edged.engine.chat import ChatEncoder
from edged.engine.frames import Cancel, Finished, Piece, Refused, Submit, Up
from edged.engine.protocol import BatchChunk, Engine
from edged.engine.sampling import Sampler
from edged.engine.text import TextStream
from edged.errors import EngineFailed, PromptFailure, PromptTooLong
from edged.messages import FinishReason

CHUNK_S = 0.25
FIRST_CHUNK_TOKENS = 32
MIN_CHUNK_TOKENS = 8
FIRST_STEP_S = 10.0
"""What the first step is expected to take, before anything was measured."""


@dataclass
class _Slot:
    """One prompt on its way through the engine."""

    index: int
    job: int
    prompt: list[int]
    sampler: Sampler
    text: TextStream
    max_tokens: int
    read: int = 0
    answer: list[int] = field(default_factory=list)
    ends: FinishReason | None = None
    prefill_s: float = 0.0
    decode_s: float = 0.0


class StepLoop:
    """Runs prompts on an engine; ``emit`` gets every frame that goes up."""

    def __init__(self, engine: Engine, emit: Callable[[Up], None]) -> None:
        self._engine = engine
        self._emit = emit
        self._chat = ChatEncoder(engine)
        self._slots: list[_Slot] = []
        self._prefill_s_per_token: float | None = None
        self._decode_s: float | None = None
        self.step_began_s: float | None = None
        """CLOCK_MONOTONIC of the step that is running; read by the heartbeat's thread."""
        self.step_predicted_s = FIRST_STEP_S

    @property
    def idle(self) -> bool:
        """Nothing to do until a prompt comes."""
        return not self._slots

    def submit(self, command: Submit) -> None:
        """Give the prompt a slot, or refuse it."""
        try:
            prompt = self._chat.encode(command.messages)
            if len(prompt) >= self._engine.ctx:
                raise PromptTooLong(
                    f"the prompt is {len(prompt)} tokens, and {self._engine.ctx} are all that it "
                    "and its answer may fill; shorten it, or raise engine.ctx",
                    details={"prompt_tokens": len(prompt), "ctx": self._engine.ctx},
                )
        except PromptFailure as failure:
            self._emit(Refused(command.job, failure.code, failure.error, failure.details))
            return
        taken = {slot.index for slot in self._slots}
        self._slots.append(
            _Slot(
                index=next(i for i in range(self._engine.slots) if i not in taken),
                job=command.job,
                prompt=prompt,
                sampler=Sampler(command.sampling),
                text=TextStream(
                    command.sampling.stop,
                    strip_leading_space=self._chat.answer_begins_with_space,
                ),
                max_tokens=command.sampling.max_tokens,
            )
        )

    def cancel(self, command: Cancel) -> None:
        """End the job now; a job that has ended already is none of our business."""
        for slot in self._slots:
            if slot.job == command.job:
                slot.ends = command.reason
                self._finish(slot)
                return

    def step(self) -> None:
        """Decode one batch and emit what came of it."""
        batch = self._plan()
        began = time.monotonic()
        self.step_predicted_s = self._predict(batch)
        self.step_began_s = began
        try:
            self._engine.decode([chunk for _, chunk in batch])
        except EngineFailed as failure:
            for slot, _ in batch:
                self._give_up(slot, failure)
            return
        finally:
            self.step_began_s = None
        took_s = time.monotonic() - began
        self._learn(batch, took_s)
        for slot, chunk in batch:
            self._advance(slot, chunk, took_s)

    def _plan(self) -> list[tuple[_Slot, BatchChunk]]:
        batch: list[tuple[_Slot, BatchChunk]] = []
        reading: _Slot | None = None
        for slot in self._slots:
            if slot.answer:
                position = len(slot.prompt) + len(slot.answer) - 1
                chunk = BatchChunk(slot.index, position, slot.answer[-1:], wants_logits=True)
                batch.append((slot, chunk))
            else:
                reading = reading or slot
        if reading is not None:
            room = self._engine.max_batch_tokens - len(batch)
            end = reading.read + min(self._chunk_tokens(), room)
            tokens = reading.prompt[reading.read : end]
            last = reading.read + len(tokens) == len(reading.prompt)
            chunk = BatchChunk(reading.index, reading.read, tokens, wants_logits=last)
            batch.append((reading, chunk))
        return batch

    def _chunk_tokens(self) -> int:
        if self._prefill_s_per_token is None:
            return FIRST_CHUNK_TOKENS
        return max(MIN_CHUNK_TOKENS, int(CHUNK_S / max(self._prefill_s_per_token, 1e-6)))

    def _predict(self, batch: list[tuple[_Slot, BatchChunk]]) -> float:
        if self._prefill_s_per_token is None:
            return FIRST_STEP_S
        tokens = sum(len(chunk.tokens) for _, chunk in batch)
        return max(tokens * self._prefill_s_per_token, self._decode_s or 0.0)

    def _learn(self, batch: list[tuple[_Slot, BatchChunk]], took_s: float) -> None:
        tokens = sum(len(chunk.tokens) for _, chunk in batch)
        if tokens > len(batch):
            self._prefill_s_per_token = _smooth(self._prefill_s_per_token, took_s / tokens)
        else:
            self._decode_s = _smooth(self._decode_s, took_s)

    def _advance(self, slot: _Slot, chunk: BatchChunk, took_s: float) -> None:
        if slot.answer:
            slot.decode_s += took_s
        else:
            slot.read += len(chunk.tokens)
            slot.prefill_s += took_s
        if not chunk.wants_logits:
            return
        try:
            token = self._engine.sample(slot.index, slot.sampler)
        except EngineFailed as failure:
            self._give_up(slot, failure)
            return
        slot.answer.append(token)
        if token in self._engine.chat.stop_ids:
            slot.ends = "stop"
        else:
            text = slot.text.feed(self._engine.token_bytes(token))
            if text:
                self._emit(Piece(slot.job, text, len(slot.answer), time.monotonic()))
            if slot.text.stopped:
                slot.ends = "stop"
            elif (
                len(slot.answer) >= slot.max_tokens
                or len(slot.prompt) + len(slot.answer) >= self._engine.ctx
            ):
                slot.ends = "length"
        if slot.ends is not None:
            self._finish(slot)

    def _finish(self, slot: _Slot) -> None:
        self._release(slot)
        assert slot.ends is not None
        self._emit(
            Finished(
                job=slot.job,
                text=slot.text.finish(),
                finish_reason=slot.ends,
                prompt_tokens=len(slot.prompt),
                cached_tokens=0,
                completion_tokens=len(slot.answer),
                prefill_s=slot.prefill_s,
                decode_s=slot.decode_s,
            )
        )

    def _give_up(self, slot: _Slot, failure: EngineFailed) -> None:
        self._release(slot)
        self._emit(Refused(slot.job, failure.code, failure.error, failure.details))

    def _release(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._engine.forget(slot.index, 0)


def _smooth(old: float | None, new: float) -> float:
    """Half old, half new: steps drift with the machine's load, and one may be an outlier."""
    return new if old is None else (old + new) / 2
