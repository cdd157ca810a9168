"""What llama.cpp itself says it allocates, read from its log."""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp as lib

from edged.engine import llama_backends
from edged.engine.llama_cpp import _FLASH_ATTENTION, _KV_TYPES, _LOAD_MODES, _set
from edged.models.configuration import MAX_BATCH_TOKENS, Configuration

MIB = 2**20


@dataclass(frozen=True)
class Buffers:
    """In bytes, as exact as the log (hundredths of a MiB)."""

    weights: dict[str, float]
    """By the kind of buffer: ``CPU``, ``CPU_Mapped``, ``CPU_REPACK``."""
    kv: float
    compute: float
    output: float


def dry_run(path: Path, how: Configuration) -> Buffers:
    """All but the weights: llama.cpp's own planning of its buffers."""
    return _buffers(path, how, load_mode=lib.LLAMA_LOAD_MODE_NONE, no_alloc=True)


def real_load(path: Path, how: Configuration) -> Buffers:
    return _buffers(path, how, load_mode=_LOAD_MODES[how.load_mode], no_alloc=False)


def _buffers(path: Path, how: Configuration, **fields: object) -> Buffers:
    model = lib.llama_model_default_params()
    plain = how.load_mode == "none-plain"
    _set(model, use_extra_bufts=not plain, n_gpu_layers=0, **fields)
    context = lib.llama_context_default_params()
    batch_tokens = min(MAX_BATCH_TOKENS, how.padded_cells)
    _set(
        context,
        n_ctx=how.padded_cells,
        n_batch=batch_tokens,
        n_ubatch=min(how.ubatch_tokens, batch_tokens),
        n_seq_max=how.slots,
        n_outputs_max=how.outputs_max,
        flash_attn_type=_FLASH_ATTENTION[how.flash_attention],
        type_k=_KV_TYPES[how.kv_type],
        type_v=_KV_TYPES[how.kv_type],
        no_perf=True,
        kv_unified=True,
    )
    with _log() as lines:
        llama_backends.start()
        loaded: Any = lib.llama_model_load_from_file(str(path).encode(), model)
        assert loaded, lines
        ready: Any = lib.llama_init_from_model(loaded, context)
        assert ready, lines
        lib.llama_free(ready)
        lib.llama_model_free(loaded)
    text = "".join(lines)
    size = r"\s*=\s*([\d.]+) MiB"
    weights = re.findall(rf"(\w+) model buffer size{size}", text)
    return Buffers(
        weights={name: float(mib) * MIB for name, mib in weights},
        kv=_sum(rf"size{size} \(\s*\d+ cells", text),
        compute=_sum(rf"compute buffer size{size}", text),
        output=_sum(rf"output buffer size{size}", text),
    )


def _sum(pattern: str, text: str) -> float:
    found = re.findall(pattern, text)
    assert found, text
    return sum(float(mib) for mib in found) * MIB


@contextmanager
def _log() -> Iterator[list[str]]:
    lines: list[str] = []

    @lib.llama_log_callback
    def log(_level: int, text: bytes, _user_data: object) -> None:
        lines.append(text.decode(errors="replace"))

    lib.llama_log_set(log, None)
    yield lines
    lib.llama_log_set(ctypes.cast(None, lib.llama_log_callback), None)
