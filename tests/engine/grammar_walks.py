"""Ways through a grammar, with the bundled model's vocabulary."""

import functools
from collections.abc import Callable, Iterable

import llama_cpp as lib
import numpy as np

from edged.engine.llama_cpp import LlamaVocabulary, _set
from edged.engine.llama_grammar import LlamaGrammar
from edged.engine.protocol import Logits
from edged.models.bundled import BUNDLED_MODEL

MOST_TOKENS = 400


@functools.cache
def vocabulary() -> LlamaVocabulary:
    parameters = lib.llama_model_default_params()
    _set(parameters, vocab_only=True, load_mode=lib.LLAMA_LOAD_MODE_NONE)
    model = lib.llama_model_load_from_file(str(BUNDLED_MODEL).encode(), parameters)
    assert model
    return LlamaVocabulary(model)


@functools.cache
def pieces() -> list[bytes]:
    """The bytes of every token."""
    return [vocabulary().token_bytes(token) for token in range(vocabulary().size)]


@functools.cache
def byte_tokens() -> dict[int, int]:
    """The token that is just this byte."""
    return {piece[0]: token for token, piece in enumerate(pieces()) if len(piece) == 1}


@functools.cache
def ends() -> frozenset[int]:
    """The tokens that end an answer."""
    pointer = vocabulary().pointer
    return frozenset(
        token for token in range(vocabulary().size) if lib.llama_vocab_is_eog(pointer, token)
    )


def start(text: str) -> LlamaGrammar:
    return LlamaGrammar(vocabulary().pointer, text)


def is_complete(grammar: LlamaGrammar) -> bool:
    return all(map(grammar.allows, ends()))


def follow(grammar: LlamaGrammar, answer: bytes) -> bool:
    """Whether the answer may go on like that, byte by byte."""
    for byte in answer:
        token = byte_tokens()[byte]
        if not grammar.allows(token):
            return False
        grammar.accept(token)
    return True


def derives(text: str, answer: str | bytes) -> bool:
    """Whether the grammar has this answer, whole."""
    grammar = start(text)
    data = answer.encode() if isinstance(answer, str) else answer
    try:
        return follow(grammar, data) and is_complete(grammar)
    finally:
        grammar.close()


def random_answer(
    text: str, seed: int, wanted: Callable[[bytes], float] | None = None
) -> bytes | None:
    """An answer by chance; ``None`` for one that does not end. ``wanted`` weighs the tokens."""
    generator = np.random.default_rng(seed)
    bias = _bias(wanted or _short)
    grammar = start(text)
    answer = b""
    try:
        for _ in range(MOST_TOKENS):
            noise = generator.normal(size=len(bias)).astype(np.float32)
            token = int(np.argmax(grammar.mask(2 * noise + bias)))
            assert grammar.allows(token), answer
            grammar.accept(token)
            if token in ends():
                return answer
            answer += pieces()[token]
        return None
    finally:
        grammar.close()


def _short(piece: bytes) -> float:
    """What ends a value is likely, so that answers do."""
    return {b'"': 5.0, b"]": 5.0, b"}": 5.0}.get(piece, 2.0 if len(piece) == 1 else 0.0)


def _bias(wanted: Callable[[bytes], float]) -> Logits:
    weights: Iterable[float] = (
        6.0 if token in ends() else wanted(piece) for token, piece in enumerate(pieces())
    )
    return np.fromiter(weights, dtype=np.float32)
