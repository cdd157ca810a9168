"""What a model will need, by arithmetic: no file is opened, no byte is loaded.

The formulas follow what the engines allocate (llama.cpp as of llama-cpp-python 0.3.36:
src/llama-kv-cache.cpp, src/llama-kv-cells.h, ggml/src/ggml-cpu/repack.cpp; for its scratch memory
``edged.models.buffers``; ctransformers 0.2.27); only ``OVERHEAD_…``, what a process holds besides,
was measured. ``benchmarks/sizing`` compares all of it with real loads.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from edged.models.buffers import compute_bytes, output_bytes, work_bytes
from edged.models.configuration import CTX_STEP, Configuration, KvType
from edged.models.gguf_header import TensorInfo
from edged.models.gguf_writer import padded
from edged.models.shape import ModelShape

Rope = Literal["plain", "short", "long"]

_KV_BLOCK: Final[dict[str, tuple[int, int]]] = {
    "f16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
}
"""Weights and bytes of a block (ggml-common.h)."""

_CPU_ALIGNMENT: Final = 32
_GPU_ALIGNMENT: Final = 128

# What rows a type's interleaved kernels want, by the processor's feature (repack.cpp).
_REPACKED: Final[dict[str, dict[str, int]]] = {
    "avx2": {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8},
    "dotprod": {
        "Q4_0": 4,
        "Q4_K": 8,
        "Q5_K": 8,
        "Q6_K": 8,
        "Q8_0": 4,
        "IQ4_NL": 4,
        "MXFP4": 4,
    },
}

# Measured with the bundled model (the process, after a first answer) and with the vocabularies of
# Phi-3-mini (tokens) and Phi-4-mini (merges): Python with its libraries, and what llama.cpp's
# tables hold of a token and of a merge.
OVERHEAD_PROCESS_BYTES: Final = 50 * 2**20
OVERHEAD_TOKEN_BYTES: Final = 180
OVERHEAD_MERGE_BYTES: Final = 85
# Of each token in the cache, what the step loop notes: prompt, prefix, where three in a row stood.
OVERHEAD_CELL_BYTES: Final = 260
# What a CUDA context and its kernels hold, on the GPU and beside it; common knowledge, not
# measured here.
OVERHEAD_CUDA_GPU_BYTES: Final = 400 * 2**20
OVERHEAD_CUDA_HOST_BYTES: Final = 250 * 2**20

_KV_CELL_BYTES: Final = 52 + 2 * 48
"""What llama.cpp notes of each cell beside its keys and values: entries of four vectors and, where
it is used, two nodes of a std::set."""
STEP_OVERHEAD_S: Final = 0.001
"""What a step costs beside reading the weights: sampling, detokenising, Python."""


@dataclass(frozen=True)
class Parts:
    """Bytes in one kind of memory."""

    weights_bytes: int = 0
    kv_bytes: int = 0
    compute_bytes: int = 0
    overhead_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.overhead_bytes

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(
            self.weights_bytes + other.weights_bytes,
            self.kv_bytes + other.kv_bytes,
            self.compute_bytes + other.compute_bytes,
            self.overhead_bytes + other.overhead_bytes,
        )


@dataclass(frozen=True)
class Memory:
    """What a load will hold: in the machine's memory, and on its GPU.

    ``mapped_bytes`` of ``host.weights_bytes`` are pages of a mapped file, read for every token;
    ``spare_file_bytes`` more of its pages stay in sight as long as nobody needs their memory.
    """

    host: Parts
    gpu: Parts
    mapped_bytes: int
    spare_file_bytes: int

    @property
    def both(self) -> Parts:
        return self.host + self.gpu


def memory(shape: ModelShape, how: Configuration, isa: Collection[str]) -> Memory:
    """What serving ``shape`` in this way holds at its peak, after a full context."""
    if how.engine == "ctransformers":
        return _ctransformers(shape, how)
    host_weights, gpu_weights, mapped = _weights(shape, how, isa)
    spare = shape.weights_bytes - mapped if how.load_mode == "mmap" else 0
    kv_layer = 2 * _kv_row_bytes(shape, how.kv_type) * how.padded_cells
    on_gpu = min(how.gpu_layers, shape.layers)
    compute = compute_bytes(shape, how)
    cell_bytes = _KV_CELL_BYTES + OVERHEAD_CELL_BYTES
    overhead = _process_bytes(shape) + how.padded_cells * cell_bytes
    host = Parts(
        weights_bytes=host_weights,
        kv_bytes=kv_layer * (shape.layers - on_gpu),
        compute_bytes=compute + output_bytes(shape, how) + work_bytes(shape, how),
        overhead_bytes=overhead + (OVERHEAD_CUDA_HOST_BYTES if how.gpu_layers else 0),
    )
    if not how.gpu_layers:
        return Memory(host, Parts(), mapped, spare)
    gpu = Parts(
        weights_bytes=gpu_weights,
        kv_bytes=kv_layer * on_gpu,
        compute_bytes=compute,
        overhead_bytes=OVERHEAD_CUDA_GPU_BYTES,
    )
    return Memory(host, gpu, mapped, spare)


def rope(shape: ModelShape, ctx: int) -> Rope:
    """Which rope factors are used where each prompt may fill so many tokens."""
    if shape.original_context_length is None:
        return "plain"
    return "long" if padded(ctx, CTX_STEP) > shape.original_context_length else "short"


def kv_token_bytes(shape: ModelShape, kv_type: str) -> int:
    """Keys and values of one token: 2 x layers x KV heads x head size x bytes an element."""
    return 2 * shape.layers * _kv_row_bytes(shape, kv_type)


def kv_type_fits(shape: ModelShape, kv_type: KvType) -> bool:
    """Whether a head's elements are whole blocks of this type, as flash attention needs."""
    return shape.head_size % _KV_BLOCK[kv_type][0] == 0


def read_bytes_a_token(shape: ModelShape) -> int:
    """What decoding one token reads of the weights.

    Of the embedding one row, unless it is the output as well; of the experts those used.
    """
    total = 0
    for tensor in shape.tensors:
        if tensor.name == "token_embd.weight" and not shape.is_tied:
            total += tensor.row_bytes
        elif "_exps." in tensor.name and shape.experts:
            total += tensor.size_bytes * shape.experts_used // shape.experts
        else:
            total += tensor.size_bytes
    return total


def decode_tokens_per_s(
    shape: ModelShape, kv_type: KvType, *, filled_tokens: int, bytes_per_s: float
) -> float:
    """Speed of one answer: decoding is bound by reading the weights and the filled cache."""
    read = read_bytes_a_token(shape) + filled_tokens * kv_token_bytes(shape, kv_type)
    return 1 / (read / bytes_per_s + STEP_OVERHEAD_S)


def is_repacked(tensor: TensorInfo, isa: Collection[str]) -> bool:
    """Whether the CPU backend copies a matrix into its interleaved layout."""
    rows = tensor.shape[1] if len(tensor.shape) > 1 else 0
    for feature, wanted in _REPACKED.items():
        step = wanted.get(tensor.type.name)
        if feature in isa and step is not None and rows and rows % step == 0:
            return True
    return False


def _weights(shape: ModelShape, how: Configuration, isa: Collection[str]) -> tuple[int, int, int]:
    """Bytes in memory, on the GPU, and of those in memory the ones that are a mapped file's."""
    first_on_gpu = shape.layers + 1 - how.gpu_layers
    host = gpu = mapped = 0
    for tensor in shape.tensors:
        layer = _layer(tensor.name, shape.layers)
        if layer >= first_on_gpu:
            gpu += padded(tensor.size_bytes, _GPU_ALIGNMENT)
            continue
        host += padded(tensor.size_bytes, _CPU_ALIGNMENT)
        if how.load_mode == "mmap" and (layer < 0 or not is_repacked(tensor, isa)):
            mapped += tensor.size_bytes
    if shape.is_tied:  # the output's copy of the embedding, unless both can be one
        embedding = next(t for t in shape.tensors if t.name == "token_embd.weight")
        if how.gpu_layers > 0:
            gpu += padded(embedding.size_bytes, _GPU_ALIGNMENT)
        elif how.load_mode != "none-plain" and is_repacked(embedding, isa):
            host += embedding.size_bytes
    return host, gpu, mapped


def _ctransformers(shape: ModelShape, how: Configuration) -> Memory:
    """The file is mapped as it is; no flash attention, so each head's scores stand in full.

    ctransformers 0.2.27 (llama.cpp of September 2023): keys and values in f16, one sequence.
    """
    tokens = min(how.ubatch_tokens, how.ctx)
    scores = 4 * shape.heads * how.ctx * tokens
    block = 4 * tokens * (4 * shape.hidden + 3 * shape.feed_forward)
    host = Parts(
        weights_bytes=shape.weights_bytes,
        kv_bytes=kv_token_bytes(shape, "f16") * how.ctx,
        compute_bytes=scores + block + 4 * shape.vocabulary * tokens,
        overhead_bytes=_process_bytes(shape),
    )
    return Memory(host, Parts(), shape.weights_bytes, 0)


def _layer(tensor: str, layers: int) -> int:
    """Which layer a tensor goes with: -1 the input, ``layers`` the output."""
    if tensor.startswith("blk."):
        return int(tensor.split(".", 2)[1])
    if tensor.startswith("output"):
        return layers
    return -1 if tensor.startswith("token_embd") else 0


def _kv_row_bytes(shape: ModelShape, kv_type: str) -> int:
    """The keys, or the values, of one token in one layer."""
    weights, size = _KV_BLOCK[kv_type]
    return padded(shape.kv_heads * shape.head_size, weights) // weights * size


def _process_bytes(shape: ModelShape) -> int:
    vocabulary = shape.vocabulary * OVERHEAD_TOKEN_BYTES + shape.merges * OVERHEAD_MERGE_BYTES
    return OVERHEAD_PROCESS_BYTES + vocabulary
