"""A prompt on its way through the daemon."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from edged.engine.frames import Finished, Submit
from edged.messages import Accepted, ChatMessage, FinishReason, Origin, Prompt, Timings
from edged.spool.conversation import Conversation
from edged.stream import ReplyStream


@dataclass
class Job:
    """Times are on the loop's clock."""

    number: int
    prompt: Prompt
    origin: Origin
    stream: ReplyStream
    arrived_s: float
    deaths: int = 0
    """How often the worker died of this prompt alone."""
    is_suspect: bool = False
    """Whether it was among those that were run when the worker died."""
    is_ended: bool = False
    """Whether its answer is only to be written down yet."""
    stopping: FinishReason | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    n: int = 0
    is_kept: bool = False
    """Whether it is on disk."""
    unnoted: int = 0
    """How often it began again without that being on disk yet."""
    accepted: Accepted = field(init=False)
    """What its requester is told once it is kept."""
    conversation: Conversation | None = None
    acknowledges: list[Callable[[], None]] = field(default_factory=list)
    deadline: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.prompt.key

    @property
    def client(self) -> str:
        return self.prompt.client

    @property
    def priority(self) -> int:
        return self.prompt.priority

    @property
    def session(self) -> tuple[str, str] | None:
        """What tells its conversation from every other."""
        name = self.prompt.session
        return None if name is None else (self.prompt.client, name)

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """What the engine is to go on from."""
        return self.prompt.messages if self.conversation is None else self.conversation.messages

    def acknowledge(self) -> None:
        """Tell all who handed it over that it is ours now, or refused."""
        for acknowledge in (self.origin.acknowledge, *self.acknowledges):
            acknowledge()
        self.acknowledges.clear()

    def forget_progress(self) -> None:
        """It is to be answered from the beginning."""
        self.started_s = self.first_token_s = None
        self.n = 0
        self.stream.restart()
        self.unnoted += 1

    def keep(self) -> None:
        """It is on disk."""
        self.is_kept = True
        self._accept()

    def noted(self) -> None:
        """That it began again is on disk."""
        self.unnoted -= 1
        self._accept()

    def _accept(self) -> None:
        # Else the next daemon, after a kill, would give the same numbers to other messages.
        if self.is_kept and not self.unnoted:
            self.stream.accept(self.accepted)

    def submit(self) -> Submit:
        """The frame that hands it to the worker."""
        prompt = self.prompt
        return Submit(
            self.number,
            self.messages,
            prompt.sampling,
            client=prompt.client,
            priority=prompt.priority,
            grammar=prompt.grammar,
        )

    def timings(self, end: Finished) -> Timings:
        """Where its time went, until now."""
        assert self.started_s is not None
        first_s = self.first_token_s
        return Timings(
            queued_ms=_ms(self.started_s - self.arrived_s),
            first_token_ms=None if first_s is None else _ms(first_s - self.arrived_s),
            prefill_tokens_per_s=rate(end.prompt_tokens - end.cached_tokens, end.prefill_s),
            # The first token comes out of reading the prompt; the rest are decoded.
            decode_tokens_per_s=rate(end.completion_tokens - 1, end.decode_s),
        )


def rate(count: int, seconds: float) -> float | None:
    """Of something counted, a second; ``None`` where nothing was measured."""
    return round(count / seconds, 2) if count > 0 and seconds > 0 else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
