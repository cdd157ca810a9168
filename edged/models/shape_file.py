"""Writes files of a model's exact shape with random weights, for measuring without a hub.

Memory and speed do not depend on what the weights are, so such a file stands in for the
real one in everything but its answers.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from edged.errors import EdgedError
from edged.models.catalogue import Entry
from edged.models.gguf_format import FILE_TYPES, ValueType
from edged.models.gguf_header import TensorInfo
from edged.models.gguf_writer import (
    ALIGNMENT,
    appearing,
    padded,
    preamble,
    scalar_key,
    string_key,
    tensor_entry,
    zeros_key,
)
from edged.models.quantisation import TYPES, Quantisation
from edged.models.shape import ModelShape
from edged.models.shape_vocabulary import vocabulary_keys

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RANDOM_WEIGHTS: Final = "(shape, random weights)"
"""How the names of such models end."""
_POOL_BYTES: Final = 8 << 20
_SIGMA: Final = 0.02
"""The weights' standard deviation: 1 / sqrt(3072) and so, which keeps activations near 1."""
_PADDING_KEY: Final = "edged.shape.padding"

# Of each type: where in its block the scale stands and, where it has one, the minimum (both
# of two bytes); the standard deviation at scale 1 of random blocks, and the minimum that
# centres them. The rest of a block may be any bytes. Source: ggml-common.h; 4-bit quants
# are 0 to 15, the scales and minima within Q4_K and Q5_K 0 to 63, Q6_K's scales a signed byte.
_BLOCKS: Final[dict[str, tuple[int, int | None, float, float]]] = {
    "Q4_0": (0, None, 4.6, 0.0),
    "Q4_1": (0, 2, 4.6, -7.5),
    "Q8_0": (0, None, 74.0, 0.0),
    "Q4_K": (0, 2, 257.0, 7.5),
    "Q5_K": (0, 2, 524.0, 15.5),
    "Q6_K": (208, None, 1369.0, 0.0),
}


def write_shape_file(
    entry: Entry,
    quantisation: Quantisation,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> None:
    """Writes ``target``; ``progress`` hears how many bytes were added.

    Its header is read as ``entry.shape(quantisation)``, apart from the name, which says
    that it is none of the real model's. The file appears whole or not at all, and the same
    call writes the same bytes. Raises ``EdgedError`` where the disk cannot hold it, and
    ``EngineUnavailable`` for an entry that has no such shape.
    """
    shape = entry.shape(quantisation)
    header = _header(entry, shape)
    try:
        available = shutil.disk_usage(target.parent).free
        if available < shape.file_bytes:
            raise EdgedError(
                f"{target}: needs {shape.file_bytes:,} bytes, but {available:,} are free there; "
                "make room or choose another disk",
            )
        with appearing(target) as partial, partial.open("wb") as out:
            out.write(header)
            progress(len(header))
            _Weights(out, progress).write(shape.tensors)
    except OSError as e:
        raise EdgedError(f"{target}: cannot be written: {e.strerror or e}") from e


def _header(entry: Entry, shape: ModelShape) -> bytes:
    a = entry.architecture
    file_type = next(id_ for id_, name in FILE_TYPES.items() if name == shape.quantisation)
    numbers = {
        "general.file_type": file_type,
        "general.quantization_version": 2,
        f"{a}.context_length": entry.context_length,
        f"{a}.embedding_length": entry.hidden,
        f"{a}.feed_forward_length": entry.feed_forward,
        f"{a}.block_count": entry.layers,
        f"{a}.attention.head_count": entry.heads,
        f"{a}.attention.head_count_kv": entry.kv_heads,
        f"{a}.rope.dimension_count": entry.rotated,
        f"{a}.rope.scaling.original_context_length": (
            entry.original_context_length or entry.context_length
        ),
    }
    if entry.experts:
        numbers |= {
            f"{a}.expert_count": entry.experts,
            f"{a}.expert_used_count": entry.experts_used,
        }
    keys = [
        string_key("general.architecture", a),
        string_key("general.name", f"{entry.title} {RANDOM_WEIGHTS}"),
        *(scalar_key(name, ValueType.UINT32, value) for name, value in numbers.items()),
        scalar_key(f"{a}.attention.layer_norm_rms_epsilon", ValueType.FLOAT32, 1e-5),
        scalar_key(f"{a}.rope.freq_base", ValueType.FLOAT32, entry.rope_theta),
        *vocabulary_keys(entry),
    ]
    tensors = b"".join(
        tensor_entry(t.name, t.shape, t.type, t.offset_bytes - entry.header_bytes)
        for t in shape.tensors
    )
    before = preamble(len(shape.tensors), len(keys) + 1) + b"".join(keys)
    # The public header has longer texts than this one; without them weights would move.
    filler = entry.header_bytes - len(before) - len(tensors)
    return before + zeros_key(_PADDING_KEY, filler) + tensors


class _Weights:
    """Writes tensors from a pool of random blocks for each type."""

    def __init__(self, out: BinaryIO, progress: Callable[[int], None]) -> None:
        import numpy as np  # noqa: PLC0415 (not for all commands)

        self._out = out
        self._progress = progress
        self._random = np.random.default_rng(0)
        self._pools: dict[str, memoryview] = {}

    def write(self, tensors: tuple[TensorInfo, ...]) -> None:
        for tensor in tensors:
            if tensor.type is TYPES["F32"]:
                self._add(memoryview(_floats(tensor, self._random).tobytes()))
            else:
                self._write_blocks(tensor)
            self._add(memoryview(bytes(padded(tensor.size_bytes, ALIGNMENT) - tensor.size_bytes)))

    def _write_blocks(self, tensor: TensorInfo) -> None:
        name = tensor.type.name
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = _pool(name, self._random)
        starts = len(pool) // tensor.type.block_bytes // 2
        left = tensor.size_bytes
        while left:
            start = int(self._random.integers(starts)) * tensor.type.block_bytes
            part = pool[start : start + left]
            self._add(part)
            left -= len(part)

    def _add(self, part: memoryview) -> None:
        self._out.write(part)
        self._progress(len(part))


def _pool(name: str, random: "np.random.Generator") -> memoryview:
    """Valid blocks of that type, whose weights have mean 0 and the standard deviation above."""
    import numpy as np  # noqa: PLC0415

    scale_at, minimum_at, deviation, minimum = _BLOCKS[name]
    block_bytes = TYPES[name].block_bytes
    count = _POOL_BYTES // block_bytes
    blocks = np.frombuffer(bytearray(random.bytes(count * block_bytes)), np.uint8)
    blocks = blocks.reshape(count, block_bytes)
    scale = random.choice([-1.0, 1.0], count) * random.uniform(0.5, 1.5, count) * _SIGMA / deviation
    blocks[:, scale_at : scale_at + 2] = _half(scale)
    if minimum_at is not None:
        blocks[:, minimum_at : minimum_at + 2] = _half(scale * minimum)
    return blocks.data.cast("B")


def _half(values: "npt.NDArray[np.float64]") -> "npt.NDArray[np.uint8]":
    """The two bytes of each as a half-precision number."""
    return values.astype("<f2").view("u1").reshape(-1, 2)


def _floats(tensor: TensorInfo, random: "np.random.Generator") -> "npt.NDArray[np.float32]":
    import numpy as np  # noqa: PLC0415

    shape = tensor.shape[::-1]
    if tensor.name.endswith("_norm.weight"):
        return np.ones(shape, np.float32)
    if tensor.name.startswith("rope_factors"):  # 1 and more, rising, as the real ones do
        highest = 64 if "long" in tensor.name else 2
        return np.geomspace(1, highest, shape[0], dtype=np.float32)
    return random.normal(0, _SIGMA, shape).astype(np.float32)
