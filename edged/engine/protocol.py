"""What an engine is: tokens in, tokens out, nothing of prompts, queues or text streams.

An engine holds ``slots`` independent sequences of at most ``ctx`` tokens each. The step
loop owns all bookkeeping; an engine only does what it is told, in this order: ``decode``
a batch, then ``sample`` each slot whose chunk asked for it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edged.models.gguf import Header

DEFAULT_CTX = 4096
"""Tokens a slot holds when neither the operator nor a shorter model says otherwise."""
MAX_BATCH_TOKENS = 512
THREAD_WORTH_BYTES = 32 * 2**20

Logits = npt.NDArray[np.float32]


class Picker(Protocol):
    """Chooses a token from one row of logits, shape (vocabulary,)."""

    def pick(self, logits: Logits) -> int: ...


@dataclass(frozen=True)
class BatchChunk:
    """Consecutive tokens of one slot, the first at ``position``.

    With ``wants_logits`` the last of them can be sampled from after the decode.
    """

    slot: int
    position: int
    tokens: Sequence[int]
    wants_logits: bool


@dataclass(frozen=True)
class EngineMemory:
    """The two large parts of what an engine holds, in bytes, without a repacked copy."""

    weights_bytes: int
    kv_cache_bytes: int


@dataclass(frozen=True)
class ChatSpec:
    """What the engine's model says about conversations.

    ``template`` is the Jinja source of the file, if any; ``stop_ids`` end a generation.
    ``bos_id`` is put in front exactly once, where it is not ``None``.
    """

    template: str | None
    bos_id: int | None
    bos_text: str
    eos_text: str
    stop_ids: frozenset[int]


class Engine(Protocol):
    """Weights, a KV cache and a tokenizer. Every method is called from one thread."""

    name: str
    model_name: str
    quantisation: str
    slots: int
    ctx: int
    max_batch_tokens: int
    chat: ChatSpec

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids of ``text``, without BOS; ``<|user|>`` is one id only if ``parse_special``."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes a token stands for, perhaps part of a code point; control tokens: b""."""
        ...

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        """Run the model over the chunks, at most ``max_batch_tokens`` together.

        Raises ``EngineFailed`` when the native call does.
        """
        ...

    def sample(self, slot: int, picker: Picker) -> int:
        """Choose the slot's next token from the logits of the last ``decode``."""
        ...

    def forget(self, slot: int, position: int) -> None:
        """Drop the slot's tokens from ``position`` on."""
        ...

    def set_threads(self, decode: int, prefill: int) -> None:
        """Threads for steps of one token a slot, and for steps that read a prompt."""
        ...

    def memory(self) -> EngineMemory:
        """What the engine holds now."""
        ...

    def close(self) -> None:
        """Give everything back; the engine is not used again."""
        ...


def default_threads(header: Header) -> int:
    """Threads for a model when the operator names none: every core, but fewer for small ones.

    Threads meet after each of a step's many small products; below ``THREAD_WORTH_BYTES`` of
    weights each, they wait longer for one another than they compute.
    """
    return min(len(os.sched_getaffinity(0)), 1 + header.weights_bytes // THREAD_WORTH_BYTES)
