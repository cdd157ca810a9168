"""Which prompts are in the engine, and whose turn is next.

A prompt that was run when the worker died runs again alone: only who is alone with a worker
that dies is to blame.
"""

import asyncio
import logging
from collections.abc import Callable

from edged.engine.frames import Cancel, Refused
from edged.engine.handle import EngineHandle
from edged.errors import (
    Cancelled,
    EngineFailed,
    Expired,
    InternalFailure,
    PromptFailure,
    PromptTooLong,
    UnknownModel,
)
from edged.job import Job
from edged.messages import FinishReason, Prompt
from edged.settings import QueueSettings
from edged.spool.admission import Admission
from edged.spool.conversation import Conversation
from edged.spool.spool import Spool

log = logging.getLogger(__name__)

DEATHS = 2
"""A worker may die for reasons of its own; twice under one prompt alone is no chance."""


class Dispatch:
    """Between the queue and the engine's slots. ``fail`` is told of jobs that end on the way."""

    def __init__(
        self,
        engine: EngineHandle,
        spool: Spool,
        limits: QueueSettings,
        fail: Callable[[Job, PromptFailure], None],
    ) -> None:
        self._engine = engine
        self._spool = spool
        self._fail = fail
        self._idle = asyncio.Event()
        self.queue: Admission[Job] = Admission(limits)
        self.active: dict[int, Job] = {}
        self.sleeps = False
        """While that is so, nobody starts."""
        self.drains = False
        self.unwritten: set[tuple[str, str]] = set()
        """Conversations whose last turn is not on disk yet."""

    def go(self) -> None:
        """Give free slots to those whose turn it is."""
        while (ready := self._engine.ready) is not None and len(self.active) < ready.slots:
            job = self._next()
            if job is None:
                return
            try:
                self.check_model(job.prompt)
                self._begin_conversation(job, ready.ctx)
                self._engine.submit(job.submit())
            except PromptFailure as failure:
                self._fail(job, failure)
            except Exception:
                log.exception("a defect of edged: prompt %d could not be handed on", job.number)
                self._fail(job, InternalFailure("edged failed at this prompt; its log says how"))
            else:
                job.started_s = asyncio.get_running_loop().time()
                self.active[job.number] = job

    def check_model(self, prompt: Prompt) -> None:
        """Raises ``UnknownModel`` where another model is served than the prompt asserts."""
        ready = self._engine.ready
        if prompt.model is not None and ready is not None and prompt.model != ready.model:
            raise UnknownModel(
                f"this node serves {ready.model}, not {prompt.model}",
                details={"requested": prompt.model, "served": ready.model},
            )

    def stop(self, job: Job, reason: FinishReason) -> None:
        """Ask for the end of an active job; the engine's ``Finished`` follows."""
        job.stopping = reason
        self._engine.cancel(Cancel(job.number, reason))

    def abandon(self, job: Job) -> None:
        """Let a job leave whose end is told by somebody else."""
        if job.number in self.active:
            self._engine.cancel(Cancel(job.number, "cancelled"))
        self.leave(job)

    def leave(self, job: Job) -> None:
        """The job is neither waiting nor active any more."""
        self.queue.remove(job.key)
        self.active.pop(job.number, None)
        if not self.active:
            self._idle.set()
        if job.deadline is not None:
            job.deadline.cancel()

    async def wait_until_idle(self) -> None:
        """Until the engine answers nobody."""
        while self.active:
            self._idle.clear()
            await self._idle.wait()

    def lost(self, reason: str) -> None:
        """The worker died: whoever was alone with it, twice, is to blame; others run again."""
        jobs = self._take_back()
        for job in jobs:
            job.is_suspect = True
            job.deaths += len(jobs) == 1
            if job.deaths < DEATHS:
                self._begin_again(job)
                continue
            self._fail(
                job,
                EngineFailed(
                    f"the engine ended {job.deaths} times while it answered this prompt and no "
                    f"other: {reason}",
                    retryable=False,
                    details={"deaths": job.deaths},
                ),
            )

    def unloaded(self) -> None:
        """The worker was ended on purpose: what it was answering is answered anew."""
        for job in self._take_back():
            self._begin_again(job)

    def fits_without_oldest_turns(self, job: Job, frame: Refused) -> bool:
        """Whether a prompt that was too long was handed down again with less of its session."""
        if frame.code != PromptTooLong.code or job.conversation is None:
            return False
        tokens, ctx = frame.details.get("prompt_tokens"), frame.details.get("ctx")
        excess = tokens - ctx + 1 if isinstance(tokens, int) and isinstance(ctx, int) else 1
        if not job.conversation.shorten(excess):
            return False
        self._engine.submit(job.submit())
        return True

    def _take_back(self) -> list[Job]:
        """Those who were active, the last first, as they are put back before each other."""
        jobs = sorted(self.active.values(), key=lambda job: -job.number)
        self.active.clear()
        self._idle.set()
        return jobs

    def _begin_again(self, job: Job) -> None:
        """A prompt whose worker is gone waits for the next one, before all others."""
        if job.stopping == "cancelled":
            self._fail(job, Cancelled("the prompt was cancelled while the engine began again"))
        elif job.stopping is not None:
            self._fail(job, expired(job))
        else:
            job.forget_progress()
            self._spool.note(
                job.number, job.stream.restarts, job.deaths, lambda _failure: job.noted()
            )
            self.queue.put_back(job)

    def _next(self) -> Job | None:
        """Whose turn it is; nobody's beside one that the worker may have died of."""
        active = self.active.values()
        if self.sleeps or self.drains or any(job.is_suspect for job in active):
            return None
        if any(job.is_suspect for job in self.queue):
            return None if active else self.queue.next(lambda job: job.is_suspect)
        most = self.queue.limits.client_active

        def may_start(job: Job) -> bool:
            """In a conversation the answer before comes first."""
            if job.session is not None and (
                job.session in self.unwritten or any(each.session == job.session for each in active)
            ):
                return False
            return most is None or sum(each.client == job.client for each in active) < most

        return self.queue.next(may_start)

    def _begin_conversation(self, job: Job, ctx: int) -> None:
        if job.prompt.session is not None:
            kept = self._spool.turns(job.client, job.prompt.session)
            job.conversation = Conversation(job.prompt, kept, self._spool.session_limits, ctx)


def expired(job: Job) -> Expired:
    """What a prompt is answered whose turn did not come in time."""
    waited_s = job.prompt.deadline_s
    return Expired(
        f"the prompt's turn did not come within its {waited_s:g} s",
        details={"deadline_s": waited_s},
    )
