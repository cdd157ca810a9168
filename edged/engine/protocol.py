"""What an engine is: tokens in, tokens out, nothing of prompts, queues or text streams.

An engine answers ``slots`` prompts at once, each of at most ``ctx`` tokens with its answer. It
keeps them as sequences that share a cache of ``cells`` tokens; a sequence may stay there when
its prompt has ended. The step loop owns all bookkeeping; an engine only does what it is told,
in this order: ``decode`` a batch, then ``sample`` each sequence whose chunk asked for it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edged.errors import InvalidRequest
from edged.models.gguf import Header
from edged.models.plan import threads_worth

DEFAULT_CTX = 4096
"""Tokens a slot holds when neither the operator nor a shorter model says otherwise."""

Logits = npt.NDArray[np.float32]


class Picker(Protocol):
    """Chooses a token from one row of logits, shape (vocabulary,)."""

    def pick(self, logits: Logits) -> int: ...


class Grammar(Protocol):
    """What may follow in one answer. Where it is complete, tokens that end it may."""

    def allows(self, token: int) -> bool:
        """Whether ``token`` may come next."""
        ...

    def mask(self, logits: Logits) -> Logits:
        """A copy in which every token that may not come next is at minus infinity."""
        ...

    def accept(self, token: int) -> None:
        """The next token; one that ``allows``."""
        ...

    def close(self) -> None:
        """Give its memory back."""
        ...


@dataclass(frozen=True)
class BatchChunk:
    """Consecutive tokens of one sequence, the first at ``position``.

    The last ``outputs`` of them can be sampled from after the decode.
    """

    sequence: int
    position: int
    tokens: Sequence[int]
    outputs: int


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
    cells: int
    sequences: int
    """How many may be kept; the first ``slots`` can be decoded in. With more, ``copy`` works."""
    max_batch_tokens: int
    max_outputs: int
    """Of one batch; at least ``slots``."""
    threads: tuple[int, int]
    """The most that steps may use that decode, and those that read a prompt."""
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

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        """Choose a token from the logits of the last ``decode``.

        ``row`` counts from the first of the chunk's ``outputs``.
        """
        ...

    def forget(self, sequence: int, position: int) -> None:
        """Drop the sequence's tokens from ``position`` on."""
        ...

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let the empty ``target`` begin with the first ``tokens`` of ``source``, in its cells."""
        ...

    def grammar(self, text: str) -> Grammar:
        """What holds an answer to a grammar (GBNF), for one prompt.

        Raises ``InvalidRequest`` where the engine has none, ``EngineFailed`` for a bad one.
        """
        ...

    def set_threads(self, threads: int) -> None:
        """For the steps that follow."""
        ...

    def memory(self) -> EngineMemory:
        """What the engine holds now."""
        ...

    def close(self) -> None:
        """Give everything back; the engine is not used again."""
        ...


def no_grammars(engine: str) -> InvalidRequest:
    """What a prompt is answered that wants its answer held to a grammar which no one can hold."""
    return InvalidRequest(
        f"response_format: the engine {engine} cannot hold an answer to a schema; llama_cpp can",
        details={"field": "response_format"},
    )


def default_threads(header: Header) -> int:
    """Threads for a model when the operator names none: every core, but fewer for small ones."""
    return min(len(os.sched_getaffinity(0)), threads_worth(header.weights_bytes))
