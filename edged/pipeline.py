"""One prompt, one straight line.

decoded Prompt → spooled, admitted → queued → engine slot → token pieces → sequenced replies → done

Everything here runs in the daemon's event loop. A transport calls ``submit`` and
``cancel``; the engine's handle calls the ``engine_…`` methods; whatever goes wrong in
between is answered to whoever asked.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable

from edged import prompt_log
from edged.answers import Answers
from edged.dispatch import Dispatch, expired
from edged.engine.frames import Finished, Piece, Ready, Refused
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
)
from edged.job import Job
from edged.messages import (
    Accepted,
    Level,
    Origin,
    Prompt,
    Reply,
    Send,
    Usage,
    Waiting,
)
from edged.settings import QueueSettings
from edged.spool.sessions import NewTurn
from edged.spool.spool import Spool
from edged.stream import ReplyStream

log = logging.getLogger(__name__)

SIGN_OF_LIFE_S = 15.0
STOPPING = "the node is stopping; ask it again when it is back, or another"
KEPT = "the node is stopping; this prompt is kept, and answered when it is back"
# A speed taken from fewer tokens says more about the first step than about the model.
MEANINGFUL_TOKENS = 8

_REFUSALS: dict[str, type[PromptFailure]] = {
    kind.code: kind for kind in (PromptTooLong, InvalidRequest, EngineFailed, OutOfMemory)
}


class Pipeline:
    """Takes prompts and answers each of them once."""

    def __init__(
        self, node: str, engine: EngineHandle, spool: Spool, limits: QueueSettings
    ) -> None:
        self._node = node
        self._engine = engine
        self._spool = spool
        self._answers: Answers
        self._dispatch = Dispatch(engine, spool, limits, self._fail)
        self._queue, self._active = self._dispatch.queue, self._dispatch.active
        self._jobs: dict[tuple[str, str], Job] = {}
        self._numbers = itertools.count(spool.last_number + 1)
        self._job_s: float | None = None
        self.decode_tokens_per_s: float | None = None
        """Smoothed over the prompts finished so far."""
        self.tokens = 0
        """Tokens generated since the start."""
        self._level: Level = "nominal"
        self._level_reason = ""
        self.speed = 1.0
        """Of the pace, relative to the fastest; waiting times go with it."""
        self.rests = False
        """Whether the model is unloaded for want of prompts alone: the next one loads it again."""

    @property
    def job_s(self) -> float | None:
        """How long a prompt takes, smoothed; ``None`` before the first."""
        return self._job_s

    @property
    def is_draining(self) -> bool:
        """Whether the node is about to stop."""
        return self._dispatch.drains

    @property
    def can_take(self) -> bool:
        """Whether a prompt that came now would be answered soon, as far as it depends on us."""
        return (
            (self._engine.ready is not None or self.rests)
            and not (self._dispatch.drains or self._dispatch.sleeps or self._level == "paused")
            and len(self._queue) < self._queue.limits.max_prompts
            and self._spool.no_room is None
        )

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

    def recover(self, send_to: Callable[[str], Send]) -> None:
        """Before anything else: go on with what was promised before the daemon's last end.

        ``send_to`` is how a transport answers to an address that was kept.
        """
        self._answers = Answers(self._spool, send_to)
        self._answers.send_undelivered()
        for kept in self._spool.recover():
            job = self._job(
                kept.number, kept.prompt, Origin(send_to(kept.address), kept.address), kept.restarts
            )
            job.deaths = kept.deaths
            self._keep(job, self._queue.restore(job))
            job.keep()
            self._set_deadline(job, kept.age_s)

    def submit(self, prompt: Prompt, origin: Origin) -> None:
        """Take a prompt; every outcome, a refusal too, goes to its origin."""
        try:
            if self._was_asked_before(prompt, origin):
                return
        except PromptFailure as failure:
            self._refuse(self._job(next(self._numbers), prompt, origin), failure)
            return
        job = self._job(next(self._numbers), prompt, origin)
        try:
            self._check(prompt)
            position = self._queue.admit(job, job.arrived_s, retry_after_s=self._job_s)
            self._keep(job, position)
            self._check_deadline(job)
        except PromptFailure as failure:
            self._refuse(job, failure)
            return
        self._set_deadline(job)
        # Begun while it is being written: what is slow is the disk or the prompt, seldom both.
        self._spool.accept(
            job.number, prompt, origin.address, lambda failure: self._is_kept(job, failure)
        )
        self._dispatch.go()

    def cancel(self, client: str, prompt_id: str) -> bool:
        """Stop a prompt of this client; ``False`` when there is none of that id."""
        job = self._jobs.get((client, prompt_id))
        if job is None:
            return False
        if self._queue.remove(job.key) is not None:
            self._fail(job, Cancelled("the prompt was cancelled before it started"))
        elif not job.is_ended:
            self._dispatch.stop(job, "cancelled")
        return True

    async def drain(self, limit_s: float) -> None:
        """Refuse what comes, end who is being answered, within a limit; the rest stays kept."""
        self._dispatch.drains = True
        for job in self._jobs.values():
            if job.number not in self._active and job.prompt.stream and not job.is_ended:
                job.stream.wait(Waiting(self._level, KEPT, None))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._dispatch.wait_until_idle()
        for job in self._active.values():
            if job.prompt.stream:
                job.stream.wait(Waiting(self._level, KEPT, None))

    def limit(self, limits: QueueSettings) -> None:
        """From now on; who waits already stays."""
        self._queue.limits = limits

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
        look_s = every_s / 15
        while True:
            await asyncio.sleep(look_s)
            for job in list(self._jobs.values()):
                if not job.prompt.stream or job.is_ended:
                    continue  # wants only the acceptance and the end
                if loop.time() - job.stream.last_sent_s > every_s - look_s:  # the next is too late
                    reason = self._level_reason or self._why_waiting(job)
                    job.stream.wait(Waiting(self._level, reason, self._job_s))

    # From the engine

    def engine_ready(self, ready: Ready) -> None:
        """A worker has loaded the model."""
        log.info(
            "serving %s (%s) with %s: %d tokens, %d slots, loaded in %.1f s",
            *(ready.model, ready.quantisation, ready.engine, ready.ctx, ready.slots, ready.load_s),
        )
        self._dispatch.go()

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
                if not self._dispatch.fits_without_oldest_turns(job, frame):
                    kind = _REFUSALS.get(frame.code, InternalFailure)
                    self._fail(job, kind(frame.error, details=frame.details))
        self._dispatch.go()

    def engine_lost(self, reason: str) -> None:
        """The worker is gone; its successor answers."""
        self._dispatch.lost(reason)

    def engine_unloaded(self) -> None:
        """The worker was ended for a while: what it was answering is answered anew."""
        self._dispatch.unloaded()

    def sleep(self, failure: PromptFailure) -> None:
        """End what is being answered with this, and start nothing until ``wake``."""
        self._dispatch.sleeps = True
        for job in list(self._active.values()):
            self._dispatch.abandon(job)
            self._fail(job, failure)

    def wake(self) -> None:
        """Go on with those who wait."""
        if self._dispatch.sleeps:
            self._dispatch.sleeps = False
            self._dispatch.go()

    def engine_refused(self, failure: PromptFailure) -> None:
        """There is no worker, and none to be expected soon."""
        self._fail_all(list(self._jobs.values()), failure)

    async def wait_until_idle(self) -> None:
        """Until the engine answers nobody."""
        await self._dispatch.wait_until_idle()

    # The line itself

    def _job(self, number: int, prompt: Prompt, origin: Origin, restarts: int = 0) -> Job:
        stream = ReplyStream(prompt, origin.send, restarts)
        return Job(number, prompt, origin, stream, arrived_s=asyncio.get_running_loop().time())

    def _was_asked_before(self, prompt: Prompt, origin: Origin) -> bool:
        """Whether it needs no job of its own: its answer is known, on its way, or a conflict."""
        job = self._jobs.get(prompt.key)
        ended = self._spool.find(prompt.key) if job is None else None
        if job is None and ended is None:
            return False
        digest = job.prompt.digest if job is not None else ended and ended.digest
        if digest != prompt.digest:
            failure = DuplicateConflict(
                f"this client has used the id {prompt.id!r} before, and its body was another; use "
                "a new id"
            )
            origin.send(ReplyStream(prompt, origin.send).refuse(failure))
        elif ended is not None:
            origin.send(ended.reply)
        elif job is not None and not job.is_kept:
            job.acknowledges.append(origin.acknowledge)
            return True
        elif job is not None:
            job.stream.repeat_accepted()
        origin.acknowledge()
        return True

    def _check(self, prompt: Prompt) -> None:
        if self._dispatch.drains:
            raise Draining(STOPPING)
        if self._engine.state is ModelState.REFUSED and self._engine.refusal is not None:
            raise self._engine.refusal
        self._dispatch.check_model(prompt)
        if self._spool.no_room is not None:
            raise self._spool.no_room

    def _check_deadline(self, job: Job) -> None:
        deadline_s = job.prompt.deadline_s
        eta_s = job.accepted.eta_s
        if deadline_s is not None and eta_s is not None and eta_s > deadline_s:
            raise Expired(
                f"the prompt's turn would come in {eta_s:g} s, after its {deadline_s:g} s",
                retry_after_s=eta_s,
                details={"eta_s": eta_s, "deadline_s": deadline_s, "queued": len(self._queue)},
            )

    def _set_deadline(self, job: Job, age_s: float = 0.0) -> None:
        if job.prompt.deadline_s is not None:
            job.deadline = asyncio.get_running_loop().call_later(
                max(0.0, job.prompt.deadline_s - age_s), self._pass_deadline, job
            )

    def _keep(self, job: Job, position: int) -> None:
        ready = self._engine.ready
        model = ready.model if ready else None
        job.accepted = Accepted(self._node, model, position, self._eta_s(position))
        self._jobs[job.key] = job

    def _is_kept(self, job: Job, failure: PromptFailure | None) -> None:
        """A prompt is on disk, or cannot be."""
        if failure is None:
            job.keep()
            job.acknowledge()
        elif not job.is_ended:  # else its answer is what is written instead
            self._refuse(job, failure)
            self._dispatch.go()

    def _refuse(self, job: Job, failure: PromptFailure) -> None:
        """The end of a prompt that was not accepted; nothing of it is kept."""
        prompt_log.refused(job.prompt, failure)
        self._dispatch.abandon(job)
        self._jobs.pop(job.key, None)
        job.origin.send(job.stream.refuse(failure))
        job.acknowledge()

    def _finish(self, job: Job, end: Finished) -> None:
        assert job.started_s is not None
        now_s = asyncio.get_running_loop().time()
        self._job_s = _smooth(self._job_s, now_s - job.started_s)
        self._queue.spend(
            job.client, end.prompt_tokens - end.cached_tokens + end.completion_tokens, now_s
        )
        timings = job.timings(end)
        speed = timings.decode_tokens_per_s
        if speed is not None and end.completion_tokens > MEANINGFUL_TOKENS:
            self.decode_tokens_per_s = _smooth(self.decode_tokens_per_s, speed)
        usage = Usage(end.prompt_tokens, end.cached_tokens, end.completion_tokens)
        prompt_log.answered(job.prompt, usage, now_s - job.arrived_s, end.finish_reason)
        talk = job.conversation
        reply = job.stream.finish(
            *(end.text, end.completion_tokens, end.finish_reason, usage, timings),
            session=talk.use if talk is not None else None,
        )
        turn = talk.new_turn(job.number, job.stream.text, usage) if talk is not None else None
        self._end(job, reply, turn)

    def _fail(self, job: Job, failure: PromptFailure) -> None:
        prompt_log.failed(job.prompt, failure)
        self._end(job, job.stream.fail(failure))

    def _fail_all(self, jobs: Iterable[Job], failure: PromptFailure) -> None:
        for job in jobs:
            if not job.is_ended:
                self._fail(job, failure)

    def _end(self, job: Job, reply: Reply, turn: NewTurn | None = None) -> None:
        """Whoever asks for it again meanwhile finds it among the jobs, later in the spool."""
        self._dispatch.leave(job)
        job.is_ended = True
        session = job.session if turn is not None else None
        if session is not None:
            self._dispatch.unwritten.add(session)

        def written() -> None:
            job.acknowledge()
            self._jobs.pop(job.key, None)
            if session is not None:
                self._dispatch.unwritten.discard(session)
                self._dispatch.go()

        self._answers.end(job, reply, turn, written)

    def _pass_deadline(self, job: Job) -> None:
        if job.number in self._active:
            self._dispatch.stop(job, "deadline")
        elif not job.is_ended:
            self._fail(job, expired(job))

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


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.7 * old + 0.3 * new
