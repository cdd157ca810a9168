"""What crosses edged's boundaries: a prompt on its way in, a reply stream on its way out.

Decoding outside data into these is the transports' business; everything here is
already checked, frozen and free of any transport's vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

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
    session: str | None = None
    """The conversation that ``messages`` go on; of this client."""
    session_reset: bool = False
    """Whether that conversation begins anew."""

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
class SessionUse:
    """What a conversation holds after this prompt, and how many of its turns left for it.

    A turn is what was asked and the answer to it.
    """

    turns: int
    left: int


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
    """The terminal message of a prompt that started; without ``text`` where that is not wanted."""

    type: ClassVar[str] = "done"
    text: str | None
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int
    session: SessionUse | None = None


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


class Send(Protocol):
    """How a transport takes a reply; it never raises and never blocks.

    ``delivered`` is called once the other side has taken responsibility for the reply.
    """

    def __call__(self, reply: Reply, delivered: Callable[[], None] | None = None) -> None: ...


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Origin:
    """Where a prompt came from: how to answer it, now and after a restart.

    ``address`` is the transport's own, from which it makes ``send`` again. ``acknowledge`` tells
    the other side that the prompt is ours now, or was refused.
    """

    send: Send
    address: str = ""
    acknowledge: Callable[[], None] = _nothing


Level = Literal["nominal", "trimmed", "throttled", "paused"]
"""How hard a node may work: fully, with little less, with much less, not at all."""


@dataclass(frozen=True)
class MemoryReading:
    """How much memory is left, and how hard it is to get.

    ``available_bytes`` is what may still be taken: MemAvailable, or less under a control
    group's limit, which ``limited_by`` names. ``stalled_share`` is PSI's "some avg10" as a share
    of time, the worst of the machine's and the groups'; ``None`` without PSI. ``limit_events``
    counts how often a group on our path came up against its limit.
    """

    available_bytes: int
    total_bytes: int
    limited_by: str
    stalled_share: float | None = None
    limit_events: int = 0
    oom_kills: int = 0
    gpu_free_bytes: int | None = None


@dataclass(frozen=True)
class Reading:
    """What the sensors said at one moment, faults left out and named.

    ``None`` is a sensor that the machine has not, or that cannot be believed now; the latter
    stands in ``faults`` by name and reason. ``is_slowed`` is evidence that firmware or driver
    slows the machine for its heat now. Rates are events a second.
    """

    monotonic_s: float
    temperature_c: float | None = None
    temperature_sensor: str | None = None
    passive_c: float | None = None
    """The lowest passive or hot trip point of the zone that is read."""
    critical_c: float | None = None
    fan_rpm: int | None = None
    fan_step: int | None = None
    """The state of the fan's cooling device, 0 is off."""
    is_slowed: bool = False
    is_under_voltage: bool = False
    over_currents_per_s: float | None = None
    watts: float | None = None
    clock_mhz: float | None = None
    memory: MemoryReading | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pace:
    """How hard the worker may work, from its next step on.

    ``None`` for threads leaves them to what the engine finds best. A duty of 0.5 rests after each
    step for as long as it took. ``width`` is how many prompts are answered at once, ``chunk_s`` how
    long a step may read in one, ``max_prompt_tokens`` how long one may be that comes now; ``None``
    leaves these as they are.
    """

    threads_decode: int | None = None
    threads_prefill: int | None = None
    duty_decode: float = 1.0
    duty_prefill: float = 1.0
    width: int | None = None
    chunk_s: float | None = None
    max_prompt_tokens: int | None = None
    paused: bool = False
