"""The hot loop: one decode step after another over all slots.

    take commands → start who waits → plan the next batch → decode it → sample, emit → rest

A batch holds one token of each answer, with drafts where they pay, and as much of the prompts
that are being read as may hold up the answers (``batching``). What was read stays in the cache
for prompts that begin alike (``prefixes``). How many threads compute it is tried out (``threads``),
within what the governor allows (``pacing``).
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from edged.engine.batching import ALONE_CHUNK_S, Part, chunk_tokens, next_batch
from edged.engine.chat import ChatEncoder
from edged.engine.costs import FIRST_STEP_S, StepCosts
from edged.engine.frames import Cancel, Finished, Piece, Refused, Submit, Up
from edged.engine.lookup import Lookup, Speculation
from edged.engine.others import OtherWork
from edged.engine.pacing import Pacing
from edged.engine.prefixes import Prefixes
from edged.engine.protocol import BatchChunk, Engine, Grammar
from edged.engine.run import Run, Waiting
from edged.engine.sampling import Sampler
from edged.engine.text import TextStream
from edged.engine.threads import ThreadChoice
from edged.errors import (
    EngineFailed,
    InvalidRequest,
    OutOfMemory,
    PromptFailure,
    PromptTooLong,
)
from edged.messages import Pace

COMPARABLE_TOKENS = 4
"""Shorter chunks say little about how fast prompts are read."""


class Gate(Protocol):
    """Where grammars are tried before this process takes them: ``edged.engine.grammar_gate``."""

    def ask(self, grammar: str) -> None:
        """Find out, unless it is known; whoever runs the loop is told."""
        ...

    def is_known(self, grammar: str) -> bool:
        """Whether it has been tried."""
        ...

    def refusal(self, grammar: str) -> str | None:
        """Why a grammar that was tried is refused, if it is."""
        ...


class StepLoop:
    """Runs prompts on an engine; ``emit`` gets every frame that goes up."""

    def __init__(
        self,
        engine: Engine,
        emit: Callable[[Up], None],
        *,
        gate: Gate | None = None,
        costs: StepCosts | None = None,
        system_prompt: str | None = None,
        speculates: bool = True,
    ) -> None:
        """``costs`` are what steps are known to take; without a ``gate`` grammars are not tried."""
        self._engine = engine
        self._emit = emit
        self._gate = gate
        self._chat = ChatEncoder(engine)
        self._costs = costs or StepCosts()
        self._speculation = Speculation() if speculates else None
        self._runs: list[Run] = []
        self._waiting: list[Waiting] = []
        pinned = self._chat.beginning(system_prompt) if system_prompt else []
        self._pinned = pinned if len(pinned) < engine.ctx else []
        self._prefixes = Prefixes(engine)
        self._pin_is_due = bool(self._pinned)
        self._decode_threads, self._read_threads = (ThreadChoice(most) for most in engine.threads)
        self._others = OtherWork()
        self._pacing = Pacing()
        self.step_began_s: float | None = None
        """CLOCK_MONOTONIC of the step that is running; read by the heartbeat's thread."""
        self.step_predicted_s = FIRST_STEP_S

    @property
    def idle(self) -> bool:
        """Nothing to do until a command comes."""
        if self._pacing.pace.paused:
            return True
        return not (self._runs or self._pin_is_due or any(map(self._may_start, self._waiting)))

    @property
    def rest_s(self) -> float:
        """How long to wait before the next step, as the pace has it."""
        return self._pacing.rest_s

    def order(self, pace: Pace) -> None:
        """How hard to work from the next step on."""
        self._pacing.order(pace)

    def submit(self, command: Submit) -> None:
        """Let the prompt wait for its slot, or refuse it."""
        try:
            prompt = self._chat.encode(command.messages)
            if len(prompt) >= self._engine.ctx:
                raise PromptTooLong(
                    f"the prompt is {len(prompt)} tokens, and {self._engine.ctx} are all that it "
                    "and its answer may fill; shorten it, or raise engine.ctx",
                    details={"prompt_tokens": len(prompt), "ctx": self._engine.ctx},
                )
            most = self._pacing.pace.max_prompt_tokens
            if most is not None and len(prompt) > most:
                raise OutOfMemory(
                    f"memory is scarce, and prompts of more than {most} tokens are not taken until "
                    f"there is more; this one is {len(prompt)}",
                    details={"prompt_tokens": len(prompt), "limit": most},
                )
        except PromptFailure as failure:
            self._refuse(command.job, failure)
            return
        self._waiting.append(Waiting(command, prompt))
        self._waiting.sort(key=lambda waiting: waiting.rank)

    def cancel(self, command: Cancel) -> None:
        """End the job now; a job that has ended already is none of our business."""
        for run in self._runs:
            if run.job == command.job:
                run.ends = command.reason
                self._finish(run)
                return
        for waiting in self._waiting:
            if waiting.command.job == command.job:
                self._waiting.remove(waiting)
                empty = len(waiting.prompt), 0, 0
                self._emit(Finished(command.job, "", command.reason, *empty, 0.0, 0.0))
                return

    def forget_prefixes(self) -> None:
        """Give up what no prompt is being answered from."""
        self._pin_is_due = False
        self._prefixes.forget_idle()

    def step(self) -> None:
        """Decode one batch and emit what came of it."""
        self._start()
        if not self._runs:
            self._read_pinned()
            return
        batch = next_batch(
            self._runs,
            self._costs,
            self._speculation,
            max_batch_tokens=self._engine.max_batch_tokens,
            max_outputs=self._engine.max_outputs,
            most_chunk_s=self._pacing.pace.chunk_s,
        )
        read = sum(len(part.chunk.tokens) for part in batch if not part.run.is_answering)
        plain_s = self._costs.decode_s(len(batch))
        try:
            took_s = self._decode([part.chunk for part in batch], read)
        except EngineFailed as failure:
            for part in batch:
                self._give_up(part.run, failure)
            return
        accepted = sum(self._advance(part, took_s) for part in batch)
        if not read and self._speculation is not None:
            drafts = any(part.draft for part in batch)
            worth_s = (plain_s or took_s) * (1 + accepted / len(batch)) if drafts else took_s
            self._speculation.spend(took_s, worth_s)

    def _start(self) -> None:
        """Give slots to those whose turn it is; what does not fit waits, and those behind it."""
        width = self._pacing.pace.width
        for waiting in [each for each in self._waiting if self._may_start(each)]:
            if width is not None and len(self._runs) >= width:
                return
            command, prompt = waiting.command, waiting.prompt
            tokens = min(len(prompt) + command.sampling.max_tokens, self._engine.ctx)
            held = self._prefixes.begin(command.client, prompt, tokens)
            if held is None:
                return
            self._waiting.remove(waiting)
            try:
                grammar = self._grammar(command.grammar)
            except PromptFailure as failure:
                self._prefixes.rest(held)
                self._refuse(command.job, failure)
                continue
            self._runs.append(
                Run(
                    job=command.job,
                    rank=waiting.rank,
                    prompt=prompt,
                    held=held,
                    sampler=Sampler(command.sampling, grammar),
                    text=TextStream(
                        command.sampling.stop,
                        strip_leading_space=self._chat.answer_begins_with_space,
                    ),
                    max_tokens=command.sampling.max_tokens,
                    grammar=grammar,
                    cached_tokens=len(held.tokens),
                    lookup=Lookup(prompt if self._speculation is not None else ()),
                )
            )

    def _may_start(self, waiting: Waiting) -> bool:
        grammar = waiting.command.grammar
        if grammar is None or self._gate is None:
            return True
        self._gate.ask(grammar)
        return self._gate.is_known(grammar)

    def _grammar(self, text: str | None) -> Grammar | None:
        if text is None:
            return None
        if self._gate is not None and (reason := self._gate.refusal(text)) is not None:
            raise InvalidRequest(f"response_format: {reason}", details={"field": "response_format"})
        return self._engine.grammar(text)

    def _read_pinned(self) -> None:
        """Nobody is being answered: read on in the operator's own prompt, a chunk."""
        slot = self._prefixes.slot_to_pin(len(self._pinned))
        if slot is None:
            self._pin_is_due = False
            return
        begin = len(slot.tokens)
        tokens = self._pinned[begin : begin + chunk_tokens(self._costs, ALONE_CHUNK_S)]
        tokens = tokens[: self._engine.max_batch_tokens]
        try:
            self._decode([BatchChunk(slot.index, begin, tokens, outputs=0)], read=len(tokens))
        except EngineFailed:
            self._pin_is_due = False  # prompts do without it
        else:
            self._prefixes.grow(slot, tokens)
            self._prefixes.pin(slot, begin + len(tokens))
        self._prefixes.drop(slot)

    def _decode(self, chunks: Sequence[BatchChunk], read: int) -> float:
        """Seconds that the batch took; ``read`` of its tokens are prompts'.

        Raises ``EngineFailed``.
        """
        tokens = sum(len(chunk.tokens) for chunk in chunks)
        choice = self._read_threads if read else self._decode_threads
        threads = self._pacing.threads(choice.threads, is_reading=read > 0)
        self._engine.set_threads(threads)
        self.step_predicted_s = self._costs.predict_s(read, tokens - read)
        self._others.resume()
        began_s = self.step_began_s = time.monotonic()
        try:
            self._engine.decode(chunks)
        finally:
            self.step_began_s = None
        now_s = time.monotonic()
        took_s = now_s - began_s
        self._pacing.stepped(took_s, is_reading=read > 0)
        if threads < choice.threads:
            self._learn_costs(tokens, read, took_s)
            return took_s  # of the number of threads nothing is learnt
        if not choice.is_trying:
            self._learn_costs(tokens, read, took_s)
        if not read:
            choice.learn(tokens, took_s, now_s, self._others.cores())
        elif read >= COMPARABLE_TOKENS:
            choice.learn("prompt", took_s / tokens, now_s, self._others.cores())
        return took_s

    def _learn_costs(self, tokens: int, read: int, took_s: float) -> None:
        if read < tokens:
            self._costs.learn_decode(tokens, took_s)
        elif read >= COMPARABLE_TOKENS or self._costs.prefill_s_per_token is None:
            self._costs.learn_prefill(read, took_s)

    def _advance(self, part: Part, took_s: float) -> int:
        """Take what came of a run's part of a step; how many drafted tokens came true."""
        run, chunk = part.run, part.chunk
        begin = len(run.held.tokens)
        self._prefixes.grow(run.held, chunk.tokens)
        if not run.is_answering:
            run.prefill_s += took_s
            if not chunk.outputs:
                return 0
            self._pin(run)
        else:
            run.decode_s += took_s
        try:
            accepted = self._sample(part)
        except EngineFailed as failure:
            self._give_up(run, failure)
            return 0
        if part.draft is not None:
            drafted = len(part.draft.tokens)
            self._prefixes.cut(run.held, begin + len(chunk.tokens) - drafted + accepted)
            run.drafted_tokens += drafted
            run.accepted_tokens += accepted
            if run.ends is None and self._speculation is not None:
                self._speculation.learn(part.draft, accepted)
        if run.ends is not None:
            self._finish(run)
        return accepted

    def _sample(self, part: Part) -> int:
        """Choose tokens as long as they are those drafted; how many of them were."""
        run, chunk = part.run, part.chunk
        drafted = part.draft.tokens if part.draft is not None else []
        for row, expected in enumerate([*drafted, None]):
            token = self._engine.sample(chunk.sequence, run.sampler, row)
            self._take(run, token)
            if run.ends is not None or token != expected:
                return row
        raise AssertionError("nothing is expected of the last row")

    def _take(self, run: Run, token: int) -> None:
        """The answer's next token: emit its text, see whether it is the last."""
        run.answer.append(token)
        run.lookup.add(token)
        if token in self._engine.chat.stop_ids:
            run.ends = "stop"
            return
        text = run.text.feed(self._engine.token_bytes(token))
        if text:
            self._emit(Piece(run.job, text, len(run.answer), time.monotonic()))
        if run.text.stopped:
            run.ends = "stop"
        elif (
            len(run.answer) >= run.max_tokens
            or len(run.prompt) + len(run.answer) >= self._engine.ctx
        ):
            run.ends = "length"

    def _pin(self, run: Run) -> None:
        """Whoever has read the operator's prompt has read it for all."""
        count = len(self._pinned)
        if count and run.prompt[:count] == self._pinned:
            self._prefixes.pin(run.held, count)
            self._pin_is_due = False

    def _finish(self, run: Run) -> None:
        self._release(run)
        self._prefixes.rest(run.held)
        self._emit(run.finished())

    def _give_up(self, run: Run, failure: EngineFailed) -> None:
        self._release(run)
        self._prefixes.drop(run.held)
        self._refuse(run.job, failure)

    def _release(self, run: Run) -> None:
        self._runs.remove(run)
        if run.grammar is not None:
            run.grammar.close()

    def _refuse(self, job: int, failure: PromptFailure) -> None:
        self._emit(Refused(job, failure.code, failure.error, failure.details))
