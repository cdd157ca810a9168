"""An engine without weights: it answers with what the user said last.

For tests, ours and those of people who build on edged: deterministic, instant (or as
slow as ``echo_step_ms`` says), with one token a byte so that code points arrive in parts.
"""

import re
import time
from collections.abc import Sequence

import numpy as np

from edged.engine.frames import Load
from edged.engine.protocol import (
    DEFAULT_CTX,
    MAX_BATCH_TOKENS,
    BatchChunk,
    ChatSpec,
    EngineMemory,
    Logits,
    Picker,
)

_BYTES = 256
_SPECIALS = ("<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_IDS = {text: _BYTES + index for index, text in enumerate(_SPECIALS)}
_SPECIAL = re.compile(f"((?:{'|'.join(map(re.escape, _SPECIALS))})\\s*)")  # as Phi-3's do
_VOCABULARY = _BYTES + len(_SPECIALS)


class EchoEngine:
    """See the module. ``Engine`` of ``edged.engine.protocol``."""

    name = "echo"
    model_name = "echo"
    quantisation = "none"
    max_batch_tokens = MAX_BATCH_TOKENS
    chat = ChatSpec(
        template=None,
        bos_id=_IDS["<s>"],
        bos_text="<s>",
        eos_text="<|end|>",
        stop_ids=frozenset({_IDS["<|end|>"]}),
    )

    def __init__(self, load: Load) -> None:
        self.slots = load.slots
        self.ctx = load.ctx or DEFAULT_CTX
        self._step_s = load.echo_step_ms / 1000
        self._tokens: list[list[int]] = [[] for _ in range(load.slots)]

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        if not parse_special:
            return list(text.encode())
        ids: list[int] = []
        for part in _SPECIAL.split(text):
            ids += [_IDS[part.rstrip()]] if _SPECIAL.fullmatch(part) else part.encode()
        return ids

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < _BYTES else b""

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        time.sleep(self._step_s)
        for chunk in batch:
            tokens = self._tokens[chunk.slot]
            if chunk.position != len(tokens):
                raise AssertionError(f"position {chunk.position} after {len(tokens)} tokens")
            tokens += chunk.tokens

    def sample(self, slot: int, picker: Picker) -> int:
        tokens = self._tokens[slot]
        answer_at = len(tokens) - tokens[::-1].index(_IDS["<|assistant|>"])
        answer = self._answer(tokens[:answer_at])
        said = len([token for token in tokens[answer_at:] if token < _BYTES])
        logits: Logits = np.zeros(_VOCABULARY, dtype=np.float32)
        # Far above the rest, so that every temperature a test may use agrees.
        logits[answer[said] if said < len(answer) else _IDS["<|end|>"]] = 1e4
        return picker.pick(logits)

    @staticmethod
    def _answer(prompt: list[int]) -> list[int]:
        if _IDS["<|user|>"] not in prompt:
            return []
        begin = len(prompt) - prompt[::-1].index(_IDS["<|user|>"])
        end = prompt.index(_IDS["<|end|>"], begin)
        return list(bytes(prompt[begin:end]).strip())

    def forget(self, slot: int, position: int) -> None:
        del self._tokens[slot][position:]

    def set_threads(self, decode: int, prefill: int) -> None:
        """Nothing here runs in threads."""

    def memory(self) -> EngineMemory:
        return EngineMemory(weights_bytes=0, kv_cache_bytes=0)

    def close(self) -> None:
        self._tokens.clear()
