"""What crosses edged's boundaries: a prompt on its way in, a reply stream on its way out.

Decoding outside data into these is the transports' business; everything here is
already checked, frozen and free of any transport's vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from edged.errors import DetailValue, PromptFailure

Role = Literal["system", "user", "assistant"]
Chunk = Literal["token", "sentence"]
FinishReason = Literal["stop", "length", "cancelled", "deadline"]


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and when to stop; all of it decided at acceptance.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and
    ``repeat_penalty`` 1 switch their filter off. ``seed`` is never absent, so
    that a run can be repeated.
    """

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A prompt as the pipeline sees it: checked, with the operator's defaults filled in.

    ``id`` is unique within ``client`` on this node. ``deadline_s`` counts from arrival.
    ``digest`` is of the payload: the same id with the same digest is the same prompt again.
    """

    id: str
    client: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    digest: bytes
    priority: int = 5
    deadline_s: float | None = None
    stream: bool = True
    chunk: Chunk = "token"
    text_in_done: bool = True
    model: str | None = None
    grammar: str | None = None
    """What the answer must keep to, as GBNF."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells this prompt from every other on this node."""
        return (self.client, self.id)


@dataclass(frozen=True)
class Usage:
    """Token counts of one finished prompt."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Where the time of one finished prompt went; speeds are ``None`` when nothing was measured."""

    queued_ms: float
    first_token_ms: float | None
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None


@dataclass(frozen=True)
class Accepted:
    """The prompt is queued; ``position`` 0 starts next."""

    type: ClassVar[str] = "accepted"
    node: str
    model: str | None
    position: int
    eta_s: float | None


@dataclass(frozen=True)
class Delta:
    """More text, whole code points only; ``n`` counts the tokens so far."""

    type: ClassVar[str] = "delta"
    text: str
    n: int


@dataclass(frozen=True)
class Waiting:
    """A sign of life while nothing can be produced."""

    type: ClassVar[str] = "waiting"
    level: str
    reason: str
    retry_after_s: float | None


@dataclass(frozen=True)
class Done:
    """The terminal message of a prompt that started; ``text`` is ``None`` if not wanted."""

    type: ClassVar[str] = "done"
    text: str | None
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int


@dataclass(frozen=True)
class Failed:
    """The terminal message of a prompt that could not be answered."""

    type: ClassVar[str] = "failed"
    code: str
    status: int
    error: str
    retryable: bool
    retry_after_s: float | None
    details: Mapping[str, DetailValue] = field(default_factory=dict)

    @classmethod
    def of(cls, failure: PromptFailure) -> "Failed":
        """Turn the exception into the message that answers for it."""
        return cls(
            code=failure.code,
            status=failure.status,
            error=failure.error,
            retryable=failure.may_retry,
            retry_after_s=failure.retry_after_s,
            details=failure.details,
        )


ReplyMessage = Accepted | Delta | Waiting | Done | Failed


@dataclass(frozen=True)
class Reply:
    """One message of a prompt's reply stream; ``seq`` counts from 0 in each of ``restarts``."""

    id: str
    seq: int
    restarts: int
    message: ReplyMessage


Send = Callable[[Reply], None]
"""How a transport takes a reply; it never raises and never blocks."""
