"""Holds an answer to a grammar, with llama.cpp's grammar sampler.

llama.cpp's reading of bytes is too kind: it takes control tokens for their names, and bytes for
UTF-8 that are none (an overlong E0 9F BF). Neither would be in the text as the grammar saw it, so
both are refused here.
"""

import codecs
import ctypes
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import llama_cpp as lib
import numpy as np

from edged.engine.protocol import Logits
from edged.errors import EngineFailed

_MAX_PIECE_BYTES: Final = 512
"""A token of more is not used, which no vocabulary has noticed so far."""
_CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class LlamaGrammar:
    """Where one answer stands in its grammar. ``Grammar`` of ``edged.engine.protocol``."""

    def __init__(self, vocabulary: Any, text: str) -> None:
        """Raises ``EngineFailed`` where llama.cpp does not take the grammar."""
        self._sampler: Any = lib.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
        if not self._sampler:
            raise EngineFailed("llama.cpp does not take the grammar", retryable=False)
        self._odd = _odd_tokens(vocabulary, lib.llama_vocab_n_tokens(vocabulary))
        self._unfinished = b""

    def allows(self, token: int) -> bool:
        if not self._fits(token):
            return False
        candidate = np.zeros(1, _CANDIDATE)
        candidate["id"] = token
        self._apply(candidate)
        return bool(candidate["logit"][0] == 0)

    def mask(self, logits: Logits) -> Logits:
        candidates = np.zeros(len(logits), _CANDIDATE)
        candidates["id"] = np.arange(len(logits))
        self._apply(candidates)
        masked: Logits = np.where(candidates["logit"] == 0, logits, -np.inf).astype(np.float32)
        for token in self._odd:
            if masked[token] != -np.inf and not self._fits(token):
                masked[token] = -np.inf
        return masked

    def accept(self, token: int) -> None:
        # llama.cpp throws at a token that it refuses, which ends the process.
        if not self.allows(token):
            raise EngineFailed(f"token {token} does not fit the grammar")
        lib.llama_sampler_accept(self._sampler, token)
        data = self._unfinished + (self._odd.get(token) or b"")
        _, decoded = codecs.utf_8_decode(data, "strict", False)
        self._unfinished = data[decoded:]

    def close(self) -> None:
        lib.llama_sampler_free(self._sampler)
        self._sampler = None

    def _apply(self, candidates: "np.typing.NDArray[Any]") -> None:
        array = lib.llama_token_data_array(
            data=candidates.ctypes.data_as(ctypes.POINTER(lib.llama_token_data)),
            size=len(candidates),
            selected=-1,
            sorted=False,
        )
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))

    def _fits(self, token: int) -> bool:
        """Whether the token goes on as UTF-8; if it does by itself, llama.cpp sees to it."""
        if token not in self._odd:
            return True
        data = self._odd[token]
        if data is None:
            return False
        try:
            codecs.utf_8_decode(self._unfinished + data, "strict", False)
        except UnicodeDecodeError:
            return False
        return True


@lru_cache(maxsize=1)
def _odd_tokens(vocabulary: int, size: int) -> Mapping[int, bytes | None]:
    """The bytes of the tokens that are no UTF-8 by themselves, ``None`` for those without a text.

    Kept for one vocabulary: a process serves one model.
    """
    odd: dict[int, bytes | None] = {}
    piece = ctypes.create_string_buffer(_MAX_PIECE_BYTES)
    for token in range(size):
        length = lib.llama_token_to_piece(vocabulary, token, piece, len(piece), 0, False)
        data = piece.raw[: max(length, 0)]
        # llama.cpp's grammar reads no further than a zero byte.
        if not data or b"\0" in data:
            if not lib.llama_vocab_is_eog(vocabulary, token):
                odd[token] = None
            continue
        try:
            data.decode()
        except UnicodeDecodeError:
            odd[token] = data
    return odd
