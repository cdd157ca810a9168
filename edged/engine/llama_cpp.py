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

from edged.engine.frames import Load
from edged.engine.protocol import (
    DEFAULT_CTX,
    MAX_BATCH_TOKENS,
    BatchChunk,
    ChatSpec,
    EngineMemory,
    Picker,
    default_threads,
)
from edged.errors import EngineFailed, EngineUnavailable, ModelFileError
from edged.models.gguf import Header
from edged.models.shape import shape_of
from edged.models.sizing import kv_token_bytes

ARCHITECTURES = frozenset({"phi3", "phimoe", "llama"})

_LOAD_MODES = {
    "none": lib.LLAMA_LOAD_MODE_NONE,
    "none-plain": lib.LLAMA_LOAD_MODE_NONE,
    "mmap": lib.LLAMA_LOAD_MODE_MMAP,
}
_KV_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0, "q4_0": lib.GGML_TYPE_Q4_0}

_LOG_WARNING = 3  # enum ggml_log_level of ggml.h
_LOG_ERROR = 4


class LlamaCppEngine:
    """See the module. ``Engine`` of ``edged.engine.protocol``."""

    name = "llama_cpp"

    def __init__(self, load: Load, header: Header) -> None:
        """Raises ``ModelFileError`` where llama.cpp refuses the file or its context."""
        if header.architecture not in ARCHITECTURES:
            raise EngineUnavailable(f"llama_cpp does not serve {header.architecture} models here")
        self._log = _quiet_log()
        threads = load.threads or default_threads(header)
        kv_type = _KV_TYPES[load.kv_type]
        self.model_name = load.model_name or header.name
        self.quantisation = header.quantisation
        self.slots = load.slots
        self.ctx = min(load.ctx or DEFAULT_CTX, header.context_length)
        self.max_batch_tokens = min(MAX_BATCH_TOKENS, self.ctx * self.slots)
        lib.llama_backend_init()
        model = lib.llama_model_default_params()
        _set(
            model,
            load_mode=_LOAD_MODES[load.load_mode],
            use_extra_bufts=load.load_mode != "none-plain",
            n_gpu_layers=load.gpu_layers,
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
            n_ctx=self.ctx * self.slots,
            n_batch=self.max_batch_tokens,
            n_ubatch=min(load.ubatch_tokens, self.max_batch_tokens),
            n_seq_max=self.slots,
            n_outputs_max=self.slots,
            n_threads=threads,
            n_threads_batch=load.threads_prefill or threads,
            type_k=kv_type,
            type_v=kv_type,
            no_perf=True,
            kv_unified=False,
        )
        self._context: Any = lib.llama_init_from_model(self._model, context)
        if not self._context:
            lib.llama_model_free(self._model)
            raise ModelFileError(
                f"{path}: llama.cpp cannot make a context of {self.ctx} tokens for {self.slots} "
                "slots; set engine.ctx or engine.slots lower"
            )
        self._size = EngineMemory(
            header.weights_bytes,
            kv_token_bytes(shape_of(header), load.kv_type) * self.ctx * self.slots,
        )
        self._memory: Any = lib.llama_get_memory(self._context)
        self._vocabulary = LlamaVocabulary(self._model)
        self._batch: Any = lib.llama_batch_init(self.max_batch_tokens, 0, 1)
        self._row: dict[int, int] = {}
        self.chat = self._vocabulary.chat_spec(header)

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        return self._vocabulary.tokenise(text, parse_special=parse_special)

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes(token)

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        native = self._batch
        self._row.clear()
        count = 0
        for chunk in batch:
            for offset, token in enumerate(chunk.tokens):
                native.token[count] = token
                native.pos[count] = chunk.position + offset
                native.n_seq_id[count] = 1
                native.seq_id[count][0] = chunk.slot
                native.logits[count] = False
                count += 1
            if chunk.wants_logits:
                native.logits[count - 1] = True
                self._row[chunk.slot] = count - 1
        native.n_tokens = count
        status = lib.llama_decode(self._context, native)
        if status != 0:
            raise EngineFailed(f"llama.cpp's decode of {count} tokens returned {status}")

    def sample(self, slot: int, picker: Picker) -> int:
        row = lib.llama_get_logits_ith(self._context, self._row[slot])
        return picker.pick(np.ctypeslib.as_array(row, shape=(self._vocabulary.size,)))

    def forget(self, slot: int, position: int) -> None:
        lib.llama_memory_seq_rm(self._memory, slot, position, -1)

    def set_threads(self, decode: int, prefill: int) -> None:
        lib.llama_set_n_threads(self._context, decode, prefill)

    def memory(self) -> EngineMemory:
        return self._size

    def close(self) -> None:
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)


class LlamaVocabulary:
    """The tokenizer of a model that llama.cpp has loaded, if only its vocabulary."""

    def __init__(self, model: Any) -> None:
        self._vocab: Any = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        """See ``Engine``."""
        data = text.encode()
        room = len(data) + 2  # one id a byte, and the space put in front, which may be one each
        while True:
            ids = (lib.llama_token * room)()
            count = lib.llama_tokenize(
                self._vocab, data, len(data), ids, room, False, parse_special
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
            length = lib.llama_token_to_piece(self._vocab, token, piece, room, 0, False)
            if length >= 0:
                return piece.raw[:length]
            room = -length

    def chat_spec(self, header: Header) -> ChatSpec:
        """What the vocabulary and the file's header say about conversations."""
        bos = lib.llama_vocab_bos(self._vocab)
        template = header.metadata.get("tokenizer.chat_template")
        return ChatSpec(
            template=template if isinstance(template, str) else None,
            bos_id=bos if bos >= 0 and lib.llama_vocab_get_add_bos(self._vocab) else None,
            bos_text=self._text(bos),
            eos_text=self._text(lib.llama_vocab_eos(self._vocab)),
            stop_ids=frozenset(
                token for token in range(self.size) if lib.llama_vocab_is_eog(self._vocab, token)
            ),
        )

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        text: bytes = lib.llama_vocab_get_text(self._vocab, token)
        return text.decode(errors="replace")


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


def _quiet_log() -> object:
    """Only llama.cpp's warnings and errors reach stderr, which the daemon logs.

    Returns the callback, which ctypes does not keep alive.
    """

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def log(level: int, text: bytes, _user_data: object) -> None:
        if level in (_LOG_WARNING, _LOG_ERROR):
            sys.stderr.write(text.decode(errors="replace"))
            sys.stderr.flush()

    lib.llama_log_set(log, None)
    return log
