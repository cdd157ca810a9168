"""A pipeline between requesters and an engine, for its tests."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edged.engine.frames import Cancel, Finished, Piece, Ready, Submit
from edged.engine.handle import ModelState
from edged.errors import PromptFailure
from edged.messages import (
    ChatMessage,
    Delta,
    Done,
    Failed,
    FinishReason,
    Origin,
    Prompt,
    Reply,
    Sampling,
    Send,
)
from edged.pipeline import Pipeline
from edged.settings import QueueSettings
from tests.instant_spool import InstantSpool

READY = Ready("fake", "phi", "Q4_0", 4096, 1, 0.1, 0, 0)
PATIENCE_S = 5.0


class FakeEngine:
    """The handle as the pipeline sees it; the test says what comes up."""

    def __init__(self) -> None:
        self.ready: Ready | None = READY
        self.state = ModelState.SERVING
        self.reason: str | None = None
        self.refusal: PromptFailure | None = None
        self.submitted: list[Submit] = []
        self.cancelled: list[Cancel] = []

    def submit(self, command: Submit) -> None:
        self.submitted.append(command)

    def cancel(self, command: Cancel) -> None:
        self.cancelled.append(command)


class Requester:
    """Hears the replies to its prompts, and says of each that it has arrived."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.is_away = is_away
        self.replies: list[Reply] = []
        self.acknowledged = 0
        self._more = asyncio.Event()

    def __call__(self, reply: Reply, delivered: Callable[[], None] | None = None) -> None:
        self.replies.append(reply)
        self._more.set()
        if delivered is not None and not self.is_away:
            delivered()

    def acknowledge(self) -> None:
        self.acknowledged += 1

    async def hears(self, kind: type) -> Any:
        """Wait for a message of this kind."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for message in self.messages:
                    if isinstance(message, kind):
                        return message
                self._more.clear()
                await self._more.wait()

    @property
    def messages(self) -> list[Any]:
        return [reply.message for reply in self.replies]

    @property
    def last(self) -> Any:
        return self.messages[-1]

    @property
    def ends(self) -> list[Any]:
        """The terminal messages."""
        return [message for message in self.messages if isinstance(message, Done | Failed)]

    @property
    def numbers(self) -> list[tuple[int, int]]:
        """Restarts and sequence numbers, as they came."""
        return [(reply.restarts, reply.seq) for reply in self.replies]

    @property
    def deltas(self) -> str:
        return "".join(message.text for message in self.messages if isinstance(message, Delta))


class Line:
    """A pipeline between requesters and an engine; the spool is in memory unless one is given."""

    def __init__(
        self,
        slots: int = 1,
        max_prompts: int = 10,
        *,
        spool: Any = None,
        send_to: Callable[[str], Send] | None = None,
        **limits: Any,
    ) -> None:
        self.engine = FakeEngine()
        self.engine.ready = replace(READY, slots=slots)
        self.spool: Any = spool or InstantSpool()
        self.pipeline = Pipeline(
            "attic",
            self.engine,  # type: ignore[arg-type]
            self.spool,
            QueueSettings(max_prompts=max_prompts, **limits),
        )
        self.away = Requester()
        """Who hears what is sent to an address that was kept."""
        self.pipeline.recover(send_to or (lambda _address: self.away))

    def ask(self, name: str, to: Requester | None = None, **changes: Any) -> Requester:
        requester = to or Requester()
        origin = Origin(requester, f"address of {name}", requester.acknowledge)
        self.pipeline.submit(prompt(name, **changes), origin)
        return requester

    def job(self, name: str) -> int:
        """The number under which the engine got a prompt, the last time."""
        return next(
            each.job
            for each in reversed(self.engine.submitted)
            if each.messages[-1].content == name
        )

    def finish(self, name: str, text: str = "", reason: FinishReason = "stop") -> None:
        end = Finished(self.job(name), text, reason, 3, 1, 5, 0.5, 0.1)
        self.pipeline.engine_frame(end)

    def piece(self, name: str, text: str, n: int) -> None:
        self.pipeline.engine_frame(Piece(self.job(name), text, n, 0.0))

    def lose_worker(self, reason: str = "it was ended by SIGKILL") -> None:
        """What the handle does when its worker is gone."""
        self.engine.ready = None
        self.engine.state = ModelState.LOADING
        self.engine.reason = reason
        self.engine.submitted.clear()
        self.pipeline.engine_lost(reason)

    def refuse_model(self, failure: PromptFailure) -> None:
        """What the handle does when there is nothing that could be loaded."""
        self.lose_worker(failure.error)
        self.engine.state = ModelState.REFUSED
        self.engine.refusal = failure
        self.pipeline.engine_refused(failure)

    def load(self, **changes: Any) -> None:
        """What the handle does when a worker is ready."""
        self.engine.ready = replace(READY, **changes)
        self.engine.state = ModelState.SERVING
        self.pipeline.engine_ready(self.engine.ready)

    def unload(self) -> None:
        """What the handle does when its worker was ended to give memory back."""
        self.engine.ready = None
        self.engine.state = ModelState.UNLOADED
        self.engine.submitted.clear()
        self.pipeline.engine_unloaded()

    @property
    def running(self) -> list[str]:
        """What the last worker was given, in order."""
        return [submitted.messages[-1].content for submitted in self.engine.submitted]


def prompt(name: str, **changes: Any) -> Prompt:
    """One whose id, text and digest are its name."""
    return replace(
        Prompt(
            id=name,
            client="kitchen",
            messages=(ChatMessage("user", name),),
            sampling=Sampling(9, 0, 0, 1, 0, 1, seed=42),
            digest=name.encode(),
        ),
        **changes,
    )
