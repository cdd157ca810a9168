"""The light engine: a prebuilt wheel on x86-64, one slot, no compiler needed.

ctransformers 0.2.27 knows no Phi-3, so its models are rewritten without loss to the llama
layout. Its own tokenizer and sampler are not used: the one crashes on some scripts, the
other draws the same number again and again (models.md, "Phi-3 in ctransformers").
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ctransformers.llm import LLM, Config

from edged.engine.frames import Load
from edged.engine.protocol import (
    DEFAULT_CTX,
    BatchChunk,
    ChatSpec,
    EngineMemory,
    Grammar,
    Picker,
    default_threads,
    no_grammars,
)
from edged.engine.spm import SpmTokenizer
from edged.errors import EngineFailed, EngineUnavailable, ModelFileError
from edged.models.configuration import MAX_BATCH_TOKENS
from edged.models.convert import ensure_converted
from edged.models.gguf import Header
from edged.models.shape import shape_of
from edged.models.sizing import kv_token_bytes


class CtransformersEngine:
    """See the module. ``Engine`` of ``edged.engine.protocol``."""

    name = "ctransformers"
    slots = sequences = max_outputs = 1
    """Only the last token of a batch can be sampled from."""

    def __init__(self, load: Load, header: Header) -> None:
        """Raises ``EngineUnavailable`` for what it cannot hold, ``ModelFileError`` if damaged."""
        if load.slots != 1 and load.engine != "auto":
            raise EngineUnavailable(
                f"ctransformers answers one prompt at a time; engine.slots is {load.slots}: set it "
                "to 1, or install the llama-cpp extra"
            )
        self._tokenizer = SpmTokenizer.from_header(header)
        path = header.path
        if header.architecture != "llama":
            path = ensure_converted(path, Path(load.state_dir))
        self.model_name = load.model_name or header.name
        self.quantisation = header.quantisation
        self.ctx = min(load.ctx or DEFAULT_CTX, header.context_length)
        self.max_batch_tokens = min(MAX_BATCH_TOKENS, load.ubatch_tokens, self.ctx)
        threads = load.threads or default_threads(header)
        self.threads = (threads, load.threads_prefill or threads)
        self._threads = threads
        self.cells = self.ctx
        config = Config(context_length=self.ctx, batch_size=self.max_batch_tokens, threads=threads)
        try:
            self._llm: Any = LLM(str(path), "llama", config=config)
        except (RuntimeError, OSError) as error:
            raise ModelFileError(f"{path}: ctransformers cannot load it: {error}") from error
        kv_bytes = kv_token_bytes(shape_of(header), "f16") * self.ctx
        self._memory = EngineMemory(header.weights_bytes, kv_bytes)
        self._vocab_size: int = self._llm.vocab_size
        template = header.metadata.get("tokenizer.chat_template")
        tokenizer = self._tokenizer
        self.chat = ChatSpec(
            template=template if isinstance(template, str) else None,
            bos_id=tokenizer.bos_id if tokenizer.adds_bos else None,
            bos_text=tokenizer.token_text(tokenizer.bos_id),
            eos_text=tokenizer.token_text(tokenizer.eos_id),
            stop_ids=frozenset(tokenizer.eos_ids),
        )

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        return self._tokenizer.encode(text, parse_special=parse_special)

    def token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token)

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        for chunk in batch:
            count = len(chunk.tokens)
            tokens = (ctypes.c_int * count)(*chunk.tokens)
            # Evaluating from a position overwrites what stood behind it.
            if not self._llm.ctransformers_llm_batch_eval(
                tokens, count, chunk.position, count, self._threads
            ):
                raise EngineFailed(f"ctransformers' eval of {count} tokens failed")

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:  # noqa: ARG002 (one each)
        row = self._llm.ctransformers_llm_logits_data()
        return picker.pick(np.ctypeslib.as_array(row, shape=(self._vocab_size,)))

    def forget(self, sequence: int, position: int) -> None:
        """Nothing to do: the next eval says from which position it goes on."""

    def copy(self, source: int, target: int, tokens: int) -> None:  # noqa: ARG002 (never called)
        raise AssertionError("there is one sequence")

    def grammar(self, text: str) -> Grammar:  # noqa: ARG002 (there is no use for it)
        raise no_grammars(self.name)

    def set_threads(self, threads: int) -> None:
        self._threads = threads

    def memory(self) -> EngineMemory:
        return self._memory

    def close(self) -> None:
        self._llm = None
