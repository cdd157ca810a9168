"""What a model will need, by arithmetic: no file is opened, no byte is loaded.

The formulas follow what the engines allocate (llama.cpp as of llama-cpp-python 0.3.36:
src/llama-kv-cache.cpp, src/llama-context.cpp, ggml/src/ggml-cpu/repack.cpp;
ctransformers 0.2.27); only ``OVERHEAD_…``, what a process holds besides, was measured.
``benchmarks/sizing`` compares all of it with real loads.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from edged.models.gguf_header import TensorInfo
from edged.models.shape import ModelShape

KvType = Literal["f16", "q8_0", "q4_0"]
LoadMode = Literal["none", "none-plain", "mmap"]
"""``none`` reads the file into memory and repacks it for this processor's kernels,
``none-plain`` leaves it as it is (slower prompts), ``mmap`` maps the file and repacks beside it."""
Rope = Literal["plain", "short", "long"]

KV_TYPES: Final[tuple[KvType, ...]] = ("f16", "q8_0", "q4_0")
"""The most exact first."""
_KV_BLOCK: Final[dict[str, tuple[int, int]]] = {
    "f16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
}
"""Weights and bytes of a block (ggml-common.h)."""

CTX_STEP: Final = 256
"""llama.cpp rounds a sequence's cells up to this."""
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
# What a CUDA context and its kernels hold, on the GPU and beside it; common knowledge, not
# measured here.
OVERHEAD_CUDA_GPU_BYTES: Final = 400 * 2**20
OVERHEAD_CUDA_HOST_BYTES: Final = 250 * 2**20

_KV_CELL_BYTES: Final = 64
"""What llama.cpp notes of each cell beside its keys and values (llama-kv-cells.h)."""
_WORK_BYTES_PER_ELEMENT: Final = 292 / 256
"""An activation quantised to q8_K, as the CPU's matrix products take it."""
STEP_OVERHEAD_S: Final = 0.001
"""What a step costs beside reading the weights: sampling, detokenising, Python."""


@dataclass(frozen=True)
class Configuration:
    """How a model is to be loaded; ``ctx`` is in tokens a slot."""

    engine: str
    ctx: int
    slots: int
    kv_type: KvType
    load_mode: LoadMode
    ubatch_tokens: int
    gpu_layers: int
    """The last so many; one more than there are takes the output too, as llama.cpp counts."""

    @property
    def ctx_cells(self) -> int:
        """What a slot's context is rounded up to."""
        return _padded(self.ctx, CTX_STEP)


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
    kv_layer = _kv_layer_bytes(shape, how)
    on_gpu = min(how.gpu_layers, shape.layers)
    compute = compute_bytes(shape, how)
    overhead = _process_bytes(shape) + how.ctx_cells * how.slots * _KV_CELL_BYTES
    host = Parts(
        weights_bytes=host_weights,
        kv_bytes=kv_layer * (shape.layers - on_gpu),
        compute_bytes=compute + _output_bytes(shape, how) + _work_bytes(shape, how),
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
    """Which rope factors llama.cpp takes for a context of so many tokens a slot."""
    if shape.original_context_length is None:
        return "plain"
    return "long" if _padded(ctx, CTX_STEP) > shape.original_context_length else "short"


def kv_token_bytes(shape: ModelShape, kv_type: str) -> int:
    """Keys and values of one token: 2 x layers x KV heads x head size x bytes an element."""
    weights, size = _KV_BLOCK[kv_type]
    return 2 * shape.layers * (shape.kv_heads * shape.head_size // weights) * size


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
    """Speed of one slot: decoding is bound by reading the weights and the filled cache."""
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


def compute_bytes(shape: ModelShape, how: Configuration) -> int:
    """The scratch of one graph, with flash attention.

    Its widest moment is in a feed-forward block: the block's input, its norm and the
    residual stand beside gate, up and their product; or at the output, where the logits do.
    The attention mask (f16, each token by each cell of its slot) lives throughout. llama.cpp
    reserves as many tokens for each slot. With experts its allocator leaves a hole of one row,
    except where a quantised cache has keys and values rotated (seen in its dry run).
    """
    tokens = _padded(min(how.ubatch_tokens, how.ctx_cells * how.slots), how.slots)
    mask = 2 * how.ctx_cells * tokens
    wide = 3 * shape.feed_forward * max(shape.experts_used, 1)
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_size + shape.hidden
    rows = 4 if shape.experts and how.kv_type == "f16" else 3
    block = 4 * tokens * (rows * shape.hidden + max(wide, attention))
    logits = 4 * (outputs_max(how) * shape.vocabulary + 2 * tokens * shape.hidden)
    return mask + max(block, logits)


def outputs_max(how: Configuration) -> int:
    """Tokens of one batch that may be sampled from: one a slot."""
    return how.slots


def _weights(shape: ModelShape, how: Configuration, isa: Collection[str]) -> tuple[int, int, int]:
    """Bytes in memory, on the GPU, and of those in memory the ones that are a mapped file's."""
    first_on_gpu = shape.layers + 1 - how.gpu_layers
    host = gpu = mapped = 0
    for tensor in shape.tensors:
        layer = _layer(tensor.name, shape.layers)
        if layer >= first_on_gpu:
            gpu += _padded(tensor.size_bytes, _GPU_ALIGNMENT)
            continue
        host += _padded(tensor.size_bytes, _CPU_ALIGNMENT)
        if how.load_mode == "mmap" and (layer < 0 or not is_repacked(tensor, isa)):
            mapped += tensor.size_bytes
    if shape.is_tied:  # the output's copy of the embedding, unless both can be one
        embedding = next(t for t in shape.tensors if t.name == "token_embd.weight")
        if how.gpu_layers > 0:
            gpu += _padded(embedding.size_bytes, _GPU_ALIGNMENT)
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


def _kv_layer_bytes(shape: ModelShape, how: Configuration) -> int:
    weights, size = _KV_BLOCK[how.kv_type]
    row = -(-shape.kv_heads * shape.head_size // weights) * size
    return 2 * row * how.ctx_cells * how.slots


def _output_bytes(shape: ModelShape, how: Configuration) -> int:
    return 4 * shape.vocabulary * outputs_max(how)


def _work_bytes(shape: ModelShape, how: Configuration) -> int:
    widest = max(shape.feed_forward, shape.hidden, shape.heads * shape.head_size)
    return int(how.ubatch_tokens * widest * _WORK_BYTES_PER_ELEMENT)


def _process_bytes(shape: ModelShape) -> int:
    vocabulary = shape.vocabulary * OVERHEAD_TOKEN_BYTES + shape.merges * OVERHEAD_MERGE_BYTES
    return OVERHEAD_PROCESS_BYTES + vocabulary


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step
