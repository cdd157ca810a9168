"""The fast engine: llama.cpp through llama-cpp-python's low-level API.

The version is pinned (pyproject.toml): llama.cpp renames fields between releases, and a
ctypes structure takes the assignment of a name that it does not have without a word.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Any

import llama_cpp as lib
import numpy as np

from edged.engine import llama_backends
from edged.engine.frames import Load
from edged.engine.llama_grammar import LlamaGrammar
from edged.engine.protocol import (
    DEFAULT_CTX,
    BatchChunk,
    ChatSpec,
    EngineMemory,
    Grammar,
    Picker,
    default_threads,
)
from edged.errors import EngineFailed, EngineUnavailable, ModelFileError
from edged.models.configuration import CTX_STEP, MAX_BATCH_TOKENS, SPARE_OUTPUTS
from edged.models.gguf import Header
from edged.models.gguf_writer import padded
from edged.models.shape import ModelShape, shape_of
from edged.models.sizing import kv_token_bytes, rope

ARCHITECTURES = frozenset({"phi3", "phimoe", "llama"})

_LOAD_MODES = {
    "none": lib.LLAMA_LOAD_MODE_NONE,
    "none-plain": lib.LLAMA_LOAD_MODE_NONE,
    "mmap": lib.LLAMA_LOAD_MODE_MMAP,
}
_KV_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0, "q4_0": lib.GGML_TYPE_Q4_0}

_FLASH_ATTENTION = {
    False: lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}

_LOG_WARNING = 3  # enum ggml_log_level of ggml.h
_LOG_ERROR = 4


class LlamaCppEngine:
    """See the module. ``Engine`` of ``edged.engine.protocol``."""

    name = "llama_cpp"

    def __init__(self, load: Load, header: Header) -> None:
        """Raises ``ModelFileError`` where llama.cpp refuses the file or its context."""
        if header.architecture not in ARCHITECTURES:
            raise EngineUnavailable(f"llama_cpp does not serve {header.architecture} models here")
        lib.llama_log_set(_quiet_log, None)
        threads = load.threads or default_threads(header)
        kv_type = _KV_TYPES[load.kv_type]
        self.model_name = load.model_name or header.name
        self.quantisation = header.quantisation
        shape = shape_of(header)
        self.threads = (threads, load.threads_prefill or threads)
        self.slots = load.slots
        self.ctx = min(load.ctx or DEFAULT_CTX, header.context_length)
        self.cells = padded(load.cells or self.ctx * self.slots, CTX_STEP)
        self.ctx = min(self.ctx, self.cells)
        # A unified cache keeps as many as LLAMA_MAX_SEQ, but decodes only in n_seq_max of them.
        self.sequences = self.slots + 1
        self.max_batch_tokens = min(MAX_BATCH_TOKENS, self.cells)
        self.max_outputs = min(self.slots + SPARE_OUTPUTS, self.max_batch_tokens)
        llama_backends.start()
        model = lib.llama_model_default_params()
        _set(
            model,
            load_mode=_LOAD_MODES[load.load_mode],
            use_extra_bufts=load.load_mode != "none-plain",
            n_gpu_layers=load.gpu_layers,
            kv_overrides=_rope_overrides(shape, self.ctx, self.cells),
        )
        path = str(header.path)
        self._model: Any = lib.llama_model_load_from_file(os.fsencode(path), model)
        if not self._model:
            raise ModelFileError(f"{path}: llama.cpp cannot load it; its log has the reason")
        if load.load_mode != "mmap":
            _drop_page_cache(header)
        context = lib.llama_context_default_params()
        _set(
            context,
            n_ctx=self.cells,
            n_batch=self.max_batch_tokens,
            n_ubatch=min(load.ubatch_tokens, self.max_batch_tokens),
            n_seq_max=self.slots,
            n_outputs_max=self.max_outputs,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn_type=_FLASH_ATTENTION[load.flash_attention],
            type_k=kv_type,
            type_v=kv_type,
            no_perf=True,
            kv_unified=True,
        )
        self._context: Any = lib.llama_init_from_model(self._model, context)
        if not self._context:
            lib.llama_model_free(self._model)
            raise ModelFileError(
                f"{path}: llama.cpp cannot make a cache of {self.cells} tokens for {self.slots} "
                "slots; set engine.ctx or engine.slots lower"
            )
        self._size = EngineMemory(
            header.weights_bytes,
            kv_token_bytes(shape, load.kv_type) * self.cells,
        )
        self._memory: Any = lib.llama_get_memory(self._context)
        self._vocabulary = LlamaVocabulary(self._model)
        self._batch: Any = lib.llama_batch_init(self.max_batch_tokens, 0, 1)
        self._first_row: dict[int, int] = {}
        self.chat = self._vocabulary.chat_spec(header)

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        return self._vocabulary.tokenise(text, parse_special=parse_special)

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes(token)

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        native = self._batch
        self._first_row.clear()
        count = 0
        for chunk in batch:
            silent = len(chunk.tokens) - chunk.outputs
            self._first_row[chunk.sequence] = count + silent
            for offset, token in enumerate(chunk.tokens):
                native.token[count] = token
                native.pos[count] = chunk.position + offset
                native.n_seq_id[count] = 1
                native.seq_id[count][0] = chunk.sequence
                native.logits[count] = offset >= silent
                count += 1
        native.n_tokens = count
        status = lib.llama_decode(self._context, native)
        if status != 0:
            raise EngineFailed(f"llama.cpp's decode of {count} tokens returned {status}")

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        logits = lib.llama_get_logits_ith(self._context, self._first_row[sequence] + row)
        return picker.pick(np.ctypeslib.as_array(logits, shape=(self._vocabulary.size,)))

    def forget(self, sequence: int, position: int) -> None:
        lib.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def copy(self, source: int, target: int, tokens: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, tokens)

    def grammar(self, text: str) -> Grammar:
        return LlamaGrammar(self._vocabulary.pointer, text)

    def set_threads(self, threads: int) -> None:
        # A batch of more than one token takes the second number, also where each is another's.
        lib.llama_set_n_threads(self._context, threads, threads)

    def memory(self) -> EngineMemory:
        return self._size

    def close(self) -> None:
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)


class LlamaVocabulary:
    """The tokenizer of a model that llama.cpp has loaded, if only its vocabulary."""

    def __init__(self, model: Any) -> None:
        self.pointer: Any = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self.pointer)

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        """See ``Engine``."""
        data = text.encode()
        room = len(data) + 2  # one id a byte, and the space put in front, which may be one each
        while True:
            ids = (lib.llama_token * room)()
            count = lib.llama_tokenize(
                self.pointer, data, len(data), ids, room, False, parse_special
            )
            if count >= 0:
                found: list[int] = ids[:count]
                return found
            room = -count  # a vocabulary without the sign for a space spells it in three bytes

    def token_bytes(self, token: int) -> bytes:
        """See ``Engine``."""
        room = 64
        while True:
            piece = ctypes.create_string_buffer(room)
            length = lib.llama_token_to_piece(self.pointer, token, piece, room, 0, False)
            if length >= 0:
                return piece.raw[:length]
            room = -length

    def chat_spec(self, header: Header) -> ChatSpec:
        """What the vocabulary and the file's header say about conversations."""
        bos = lib.llama_vocab_bos(self.pointer)
        template = header.metadata.get("tokenizer.chat_template")
        return ChatSpec(
            template=template if isinstance(template, str) else None,
            bos_id=bos if bos >= 0 and lib.llama_vocab_get_add_bos(self.pointer) else None,
            bos_text=self._text(bos),
            eos_text=self._text(lib.llama_vocab_eos(self.pointer)),
            stop_ids=frozenset(
                token for token in range(self.size) if lib.llama_vocab_is_eog(self.pointer, token)
            ),
        )

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        text: bytes = lib.llama_vocab_get_text(self.pointer, token)
        return text.decode(errors="replace")


def _rope_overrides(shape: ModelShape, ctx: int, cells: int) -> object:
    """Keep a model's short rope factors where each prompt's context is short.

    llama.cpp would choose by the whole cache, which all slots share (``get_rope_factors`` in
    src/llama-model.cpp). The array must outlive the load.
    """
    if rope(shape, ctx) != "short":
        return None
    key = f"{shape.architecture}.rope.scaling.original_context_length"
    overrides = (lib.llama_model_kv_override * 2)()  # an empty key ends it
    overrides[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_INT
    overrides[0].key = key.encode()
    overrides[0].value.val_i64 = cells
    return overrides


def _drop_page_cache(header: Header) -> None:
    """Give back the pages of a file that was read into memory of our own.

    They would count against a memory cgroup, and a CUDA allocation on a Jetson fails beside them.
    """
    with header.path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _set(parameters: ctypes.Structure, **fields: object) -> None:
    """Set fields that really exist; see the module."""
    known = {field[0] for field in parameters._fields_}
    for name, value in fields.items():
        if name not in known:
            raise AttributeError(f"{type(parameters).__name__} has no field {name}")
        setattr(parameters, name, value)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _quiet_log(level: int, text: bytes, _user_data: object) -> None:
    """Only llama.cpp's warnings and errors reach stderr, which the daemon logs.

    Of the module, since llama.cpp may log when the engine that set it is gone.
    """
    # The cache may well be longer than the model's context: several prompts share it.
    if level in (_LOG_WARNING, _LOG_ERROR) and b"training context overflow" not in text:
        sys.stderr.write(text.decode(errors="replace"))
        sys.stderr.flush()
