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
    BatchChunk,
    ChatSpec,
    EngineMemory,
    Grammar,
    Logits,
    Picker,
    no_grammars,
)
from edged.models.configuration import MAX_BATCH_TOKENS, SPARE_OUTPUTS

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
    threads = (1, 1)
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
        self.cells = load.cells or self.ctx * self.slots
        self.ctx = min(self.ctx, self.cells)
        self.sequences = self.slots + 1
        self.max_outputs = self.slots + SPARE_OUTPUTS
        self._step_s = load.echo_step_ms / 1000
        self._tokens: list[list[int]] = [[] for _ in range(self.sequences)]
        self._outputs: dict[int, list[int]] = {}

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
        self._outputs.clear()
        for chunk in batch:
            tokens = self._tokens[chunk.sequence]
            if chunk.position != len(tokens):
                raise AssertionError(f"position {chunk.position} after {len(tokens)} tokens")
            tokens += chunk.tokens
            self._outputs[chunk.sequence] = list(
                range(len(tokens) - chunk.outputs + 1, len(tokens) + 1)
            )

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        tokens = self._tokens[sequence][: self._outputs[sequence][row]]
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

    def forget(self, sequence: int, position: int) -> None:
        del self._tokens[sequence][position:]

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._tokens[target] = self._tokens[source][:tokens]

    def grammar(self, text: str) -> Grammar:  # noqa: ARG002 (there is no use for it)
        raise no_grammars(self.name)

    def set_threads(self, threads: int) -> None:
        """Nothing here runs in threads."""

    def memory(self) -> EngineMemory:
        return EngineMemory(weights_bytes=0, kv_cache_bytes=0)

    def close(self) -> None:
        self._tokens.clear()
