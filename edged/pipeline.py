"""One prompt, one straight line.

decoded Prompt → admitted → queued → engine slot → token pieces → sequenced replies → done

Everything here runs in the daemon's event loop. A transport calls ``submit`` and
``cancel``; the engine's handle calls the ``engine_…`` methods; whatever goes wrong in
between is answered to whoever asked.
"""

import asyncio
import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from edged.engine.frames import Cancel, Finished, Piece, Ready, Refused, Submit
from edged.engine.handle import EngineHandle, ModelState
from edged.errors import (
    Cancelled,
    Draining,
    DuplicateConflict,
    EngineFailed,
    Expired,
    InternalFailure,
    InvalidRequest,
    OutOfMemory,
    PromptFailure,
    PromptTooLong,
    UnknownModel,
)
from edged.messages import Accepted, Level, Prompt, Send, Timings, Usage, Waiting
from edged.spool.admission import Admission
from edged.stream import ReplyStream

log = logging.getLogger(__name__)

SIGN_OF_LIFE_S = 15.0
STOPPING = "the node is stopping; ask it again when it is back, or another"
# A speed taken from fewer tokens says more about the first step than about the model.
MEANINGFUL_TOKENS = 8

_REFUSALS: dict[str, type[PromptFailure]] = {
    kind.code: kind for kind in (PromptTooLong, InvalidRequest, EngineFailed, OutOfMemory)
}


@dataclass
class Job:
    """A prompt on its way; times are on the loop's clock."""

    number: int
    prompt: Prompt
    stream: ReplyStream
    arrived_s: float
    started_s: float | None = None
    first_token_s: float | None = None
    n: int = 0
    deadline: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.prompt.key

    @property
    def priority(self) -> int:
        return self.prompt.priority


class Pipeline:
    """Takes prompts and answers each of them once."""

    def __init__(self, node: str, engine: EngineHandle, max_prompts: int) -> None:
        self._node = node
        self._engine = engine
        self._queue: Admission[Job] = Admission(max_prompts)
        self._jobs: dict[tuple[str, str], Job] = {}
        self._active: dict[int, Job] = {}
        self._numbers = itertools.count(1)
        self._draining = False
        self._sleeps = False
        self._idle = asyncio.Event()
        self._job_s: float | None = None
        self.decode_tokens_per_s: float | None = None
        """Smoothed over the prompts finished so far."""
        self.tokens = 0
        """Tokens generated since the start."""
        self._level: Level = "nominal"
        self._level_reason = ""
        self.speed = 1.0
        """Of the pace, relative to the fastest; waiting times go with it."""

    @property
    def job_s(self) -> float | None:
        """How long a prompt takes, smoothed; ``None`` before the first."""
        return self._job_s

    @property
    def queued(self) -> int:
        """Prompts that wait."""
        return len(self._queue)

    @property
    def active(self) -> int:
        """Prompts in the engine."""
        return len(self._active)

    @property
    def reading(self) -> int:
        """Of the active ones, those that have no token yet."""
        return sum(job.first_token_s is None for job in self._active.values())

    # From the transports

    def submit(self, prompt: Prompt, send: Send) -> None:
        """Take a prompt; every outcome, a refusal too, goes through ``send``."""
        known = self._jobs.get(prompt.key)
        if known is not None and known.prompt.digest == prompt.digest:
            known.stream.repeat_accepted()
            return
        stream = ReplyStream(prompt, send)
        now_s = asyncio.get_running_loop().time()
        job = Job(next(self._numbers), prompt, stream, arrived_s=now_s)
        try:
            self._check(prompt, known)
            position = self._queue.admit(job, retry_after_s=self._job_s)
        except PromptFailure as failure:
            stream.fail(failure)
            return
        self._jobs[job.key] = job
        ready = self._engine.ready
        stream.accept(
            Accepted(
                node=self._node,
                model=ready.model if ready else None,
                position=position,
                eta_s=self._eta_s(position),
            )
        )
        if prompt.deadline_s is not None:
            job.deadline = asyncio.get_running_loop().call_later(
                prompt.deadline_s, self._pass_deadline, job
            )
        self._dispatch()

    def cancel(self, client: str, prompt_id: str) -> bool:
        """Stop a prompt of this client; ``False`` when there is none of that id."""
        job = self._jobs.get((client, prompt_id))
        if job is None:
            return False
        if self._queue.remove(job.key) is not None:
            self._fail(job, Cancelled("the prompt was cancelled before it started"))
        else:
            self._engine.cancel(Cancel(job.number, "cancelled"))
        return True

    def drain(self) -> None:
        """Refuse what comes, and end what is here: the daemon is about to stop."""
        self._draining = True
        self._fail_all(list(self._jobs.values()), Draining(STOPPING))

    def tell_level(self, level: Level, reason: str) -> None:
        """What those who wait are told from now on; of a pause at once, as tokens stop coming."""
        is_news = level == "paused" != self._level
        self._level, self._level_reason = level, reason
        for job in self._active.values() if is_news else ():
            if job.prompt.stream:
                job.stream.wait(Waiting(level, reason, self._job_s))

    async def give_signs_of_life(self, every_s: float = SIGN_OF_LIFE_S) -> None:
        """Tell those who hear nothing that they are not forgotten; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_s / 15)
            for job in list(self._jobs.values()):
                if not job.prompt.stream:
                    continue  # wants only the acceptance and the end
                if loop.time() - job.stream.last_sent_s >= every_s:
                    reason = self._level_reason or self._why_waiting(job)
                    job.stream.wait(Waiting(self._level, reason, self._job_s))

    # From the engine

    def engine_ready(self, ready: Ready) -> None:
        """A worker has loaded the model."""
        log.info(
            "serving %s (%s) with %s: %d tokens, %d slots, loaded in %.1f s",
            *(ready.model, ready.quantisation, ready.engine, ready.ctx, ready.slots, ready.load_s),
        )
        self._dispatch()

    def engine_frame(self, frame: Piece | Finished | Refused) -> None:
        """Something of a job; a job that was failed meanwhile is none of ours any more."""
        job = self._active.get(frame.job)
        if job is None:
            return
        match frame:
            case Piece():
                if job.first_token_s is None:
                    job.first_token_s = asyncio.get_running_loop().time()
                self.tokens += frame.n - job.n
                job.n = frame.n
                job.stream.add(frame.text, frame.n)
            case Finished():
                self._finish(job, frame)
            case Refused():
                kind = _REFUSALS.get(frame.code, InternalFailure)
                self._fail(job, kind(frame.error, details=frame.details))
        self._dispatch()

    def engine_lost(self, reason: str) -> None:
        """The worker is gone."""
        self._fail_all(
            list(self._active.values()),
            EngineFailed(f"the engine ended in the middle of this prompt: {reason}"),
        )

    def engine_unloaded(self) -> None:
        """The worker was ended for a while: what it was answering is answered anew."""
        for job in list(self._active.values()):
            job.stream.restart()
            job.started_s = job.first_token_s = None
            job.n = 0
            self._queue.put_back(job)
        self._active.clear()
        self._idle.set()

    def sleep(self, failure: PromptFailure) -> None:
        """End what is being answered with this, and start nothing until ``wake``."""
        self._sleeps = True
        for job in list(self._active.values()):
            self._engine.cancel(Cancel(job.number, "cancelled"))
            self._fail(job, failure)

    def wake(self) -> None:
        """Go on with those who wait."""
        if self._sleeps:
            self._sleeps = False
            self._dispatch()

    def engine_refused(self, failure: PromptFailure) -> None:
        """There is no worker, and none to be expected soon."""
        self._fail_all(list(self._jobs.values()), failure)

    async def wait_until_idle(self) -> None:
        """Until the engine answers nobody."""
        while self._active:
            self._idle.clear()
            await self._idle.wait()

    # The line itself

    def _check(self, prompt: Prompt, known: Job | None) -> None:
        if self._draining:
            raise Draining(STOPPING)
        if known is not None:
            raise DuplicateConflict(
                f"this client's prompt {prompt.id!r} is still being answered, and its body was "
                "another; use a new id"
            )
        if self._engine.state is ModelState.REFUSED and self._engine.refusal is not None:
            raise self._engine.refusal
        self._check_model(prompt)

    def _check_model(self, prompt: Prompt) -> None:
        ready = self._engine.ready
        if prompt.model is not None and ready is not None and prompt.model != ready.model:
            raise UnknownModel(
                f"this node serves {ready.model}, not {prompt.model}",
                details={"requested": prompt.model, "served": ready.model},
            )

    def _dispatch(self) -> None:
        """Give free slots to those whose turn it is."""
        ready = self._engine.ready
        while not self._sleeps and ready is not None and len(self._active) < ready.slots:
            job = self._queue.next()
            if job is None:
                return
            try:
                self._check_model(job.prompt)
                self._engine.submit(_submit(job))
            except PromptFailure as failure:
                self._fail(job, failure)
            except Exception:
                log.exception("a defect of edged: prompt %d could not be handed on", job.number)
                self._fail(job, InternalFailure("edged failed at this prompt; its log says how"))
            else:
                job.started_s = asyncio.get_running_loop().time()
                self._active[job.number] = job

    def _finish(self, job: Job, end: Finished) -> None:
        self._forget(job)
        assert job.started_s is not None
        took_s = asyncio.get_running_loop().time() - job.started_s
        self._job_s = _smooth(self._job_s, took_s)
        # The first token comes out of reading the prompt; the rest are decoded.
        decode_per_s = _rate(end.completion_tokens - 1, end.decode_s)
        if decode_per_s is not None and end.completion_tokens > MEANINGFUL_TOKENS:
            self.decode_tokens_per_s = _smooth(self.decode_tokens_per_s, decode_per_s)
        first_s = job.first_token_s
        job.stream.finish(
            end.text,
            end.completion_tokens,
            end.finish_reason,
            Usage(end.prompt_tokens, end.cached_tokens, end.completion_tokens),
            Timings(
                queued_ms=_ms(job.started_s - job.arrived_s),
                first_token_ms=None if first_s is None else _ms(first_s - job.arrived_s),
                prefill_tokens_per_s=_rate(end.prompt_tokens - end.cached_tokens, end.prefill_s),
                decode_tokens_per_s=decode_per_s,
            ),
        )

    def _fail(self, job: Job, failure: PromptFailure) -> None:
        self._forget(job)
        job.stream.fail(failure)

    def _fail_all(self, jobs: Iterable[Job], failure: PromptFailure) -> None:
        for job in jobs:
            self._fail(job, failure)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.key, None)
        self._queue.remove(job.key)
        self._active.pop(job.number, None)
        if not self._active:
            self._idle.set()
        if job.deadline is not None:
            job.deadline.cancel()

    def _pass_deadline(self, job: Job) -> None:
        if job.number in self._active:
            self._engine.cancel(Cancel(job.number, "deadline"))
            return
        waited_s = job.prompt.deadline_s
        self._fail(
            job,
            Expired(
                f"the prompt's turn did not come within its {waited_s:g} s",
                details={"deadline_s": waited_s, "queued": len(self._queue)},
            ),
        )

    def _why_waiting(self, job: Job) -> str:
        if job.number in self._active:
            return "the prompt is being read" if job.first_token_s is None else "still answering"
        if self._engine.ready is None:
            return self._engine.reason or "the model is loading"
        return f"{len(self._active)} prompts are being answered, {len(self._queue)} wait"

    def _eta_s(self, position: int) -> float | None:
        """When the first token may come, from how long prompts have taken so far."""
        ready = self._engine.ready
        if ready is None or self._job_s is None:
            return None
        if self.speed <= 0:
            return None
        ahead = max(0, position + len(self._active) - ready.slots + 1)
        return round(ahead / ready.slots * self._job_s / self.speed, 3)


def _submit(job: Job) -> Submit:
    prompt = job.prompt
    return Submit(
        job.number,
        prompt.messages,
        prompt.sampling,
        client=prompt.client,
        priority=prompt.priority,
        grammar=prompt.grammar,
    )


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.7 * old + 0.3 * new


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count > 0 and seconds > 0 else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
