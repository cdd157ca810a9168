"""What the daemon and its worker say to each other over their socket pair.

A frame is four bytes of length, big-endian, then a JSON object whose ``frame`` names
one of the classes here. Down go those of ``Down``, up come those of ``Up``.
The peer is our own child, so a malformed frame is a defect, not an input to survive.
"""

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from edged.errors import DetailValue
from edged.messages import ChatMessage, FinishReason, Pace, Sampling

LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Load:
    """The first frame: what to serve, and with what; ``None`` leaves it to the engine."""

    engine: str
    model_path: str | None
    state_dir: str
    ctx: int | None
    slots: int
    threads: int | None
    echo_step_ms: float
    model_name: str | None = None
    """What it is called outside; unset: as its file says."""
    threads_prefill: int | None = None
    kv_type: str = "f16"
    load_mode: str = "none"
    ubatch_tokens: int = 512
    """Prompt tokens that are computed at once; the scratch memory grows with them."""
    gpu_layers: int = 0
    cells: int | None = None
    """Tokens that all slots may hold together; unset: ``ctx`` for each of them."""
    flash_attention: bool = True
    speculates: bool = True
    system_prompt: str | None = None
    """The operator's, read before anybody asks."""


@dataclass(frozen=True)
class Submit:
    """Start this prompt; the daemon never submits more than there are slots."""

    job: int
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    client: str = ""
    """Who may start from what this prompt leaves in the cache."""
    priority: int = 5
    grammar: str | None = None
    """What the answer must keep to, as GBNF."""


@dataclass(frozen=True)
class Cancel:
    """Stop this job within one step; it still ends in ``Finished``, with the reason given."""

    job: int
    reason: FinishReason


@dataclass(frozen=True)
class ForgetPrefixes:
    """Give up what is kept for prompts that may come."""


@dataclass(frozen=True)
class Ready:
    """The engine is loaded and takes prompts; ``ctx`` is in tokens a slot."""

    engine: str
    model: str
    quantisation: str
    ctx: int
    slots: int
    load_s: float
    weights_bytes: int
    kv_cache_bytes: int


@dataclass(frozen=True)
class LoadFailed:
    """The model cannot be served, and trying again would say the same."""

    error: str


@dataclass(frozen=True)
class Piece:
    """New text of a job; ``n`` tokens were generated so far. ``monotonic_s`` is CLOCK_MONOTONIC."""

    job: int
    text: str
    n: int
    monotonic_s: float


@dataclass(frozen=True)
class Finished:
    """A job ended; ``text`` is what the pieces have not carried yet. Times in seconds."""

    job: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class Refused:
    """A job that cannot be answered, or no further; ``code`` is one of ``edged.errors``."""

    job: int
    code: str
    error: str
    details: dict[str, DetailValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Heartbeat:
    """Sent once a second by a thread of its own.

    ``step_age_s`` is how long the current step has run, ``None`` between steps;
    ``step_predicted_s`` how long it was expected to.
    """

    step_age_s: float | None
    step_predicted_s: float


Down = Load | Submit | Cancel | ForgetPrefixes | Pace
Up = Ready | LoadFailed | Piece | Finished | Refused | Heartbeat
Frame = Down | Up

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Frame)}


def encode(frame: Frame) -> bytes:
    """The frame with its length in front."""
    kind = type(frame).__name__
    # vars() for the flat ones: a piece is sent for every token.
    fields = asdict(frame) if isinstance(frame, Submit) else vars(frame)
    # Escaped, since a path may hold bytes that are no UTF-8 (as lone surrogates).
    body = json.dumps({"frame": kind, **fields}).encode("ascii")
    return LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """The frame of a body without its length. Raises ``ValueError`` or ``KeyError`` on defects."""
    fields = json.loads(body)
    kind = _KINDS[fields.pop("frame")]
    if kind is Submit:
        sampling = fields.pop("sampling")
        sampling["stop"] = tuple(sampling["stop"])
        messages = tuple(ChatMessage(**message) for message in fields.pop("messages"))
        return Submit(messages=messages, sampling=Sampling(**sampling), **fields)
    frame: Frame = kind(**fields)
    return frame
