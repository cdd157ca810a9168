"""What llama.cpp computes in, besides weights and cache: by arithmetic, as its graph wants it.

After llama.cpp as of llama-cpp-python 0.3.36: src/models/phi3.cpp and src/llama-graph.cpp (the
tensors), ggml/src/ggml-alloc.c (which of them share memory), src/llama-context.cpp (the outputs),
ggml/src/ggml-cpu/ggml-cpu.c, ``ggml_graph_plan`` (the work buffer). Tests hold the first two
against llama.cpp's own dry run.
"""

from typing import Final

from edged.models.configuration import MAX_BATCH_TOKENS, Configuration
from edged.models.gguf_writer import padded
from edged.models.shape import ModelShape

_F16_BYTES: Final = 2
_F32_BYTES: Final = 4
_INDEX_BYTES: Final = 8
_Q8_K_BYTES: Final = 292 / 256
"""An activation quantised to q8_K, as the CPU's matrix products take it."""


def compute_bytes(shape: ModelShape, how: Configuration) -> int:
    """The scratch of one graph: its inputs, and beside them the widest of three moments.

    Holes that its allocator leaves are counted as seen in dry runs. Where logits are the widest
    (Phi-4-mini with several slots), they lay up to 2 MiB further behind in some.
    """
    return max(
        _inputs_bytes(shape, how) + max(_block_bytes(shape, how), _scores_bytes(shape, how)),
        _logits_bytes(shape, how),  # by then, the inputs are not needed any more
    )


def output_bytes(shape: ModelShape, how: Configuration) -> int:
    """Where logits are handed out."""
    return _F32_BYTES * shape.vocabulary * how.outputs_max


def work_bytes(shape: ModelShape, how: Configuration) -> int:
    """What the CPU's kernels convert their right-hand sides into.

    Activations are quantised; without flash attention the scores become f16 for the product with
    the values, and are the widest by far. Flash attention's tiles and partial results, 130 to
    160 KiB a thread, take turns in this memory, where those of four threads just fit: not counted.
    """
    tokens = _tokens(how)
    widest = max(shape.feed_forward * max(shape.experts_used, 1), shape.hidden)
    activations = int(tokens * widest * _Q8_K_BYTES)
    if how.flash_attention:
        return activations
    return max(activations, _F16_BYTES * tokens * shape.heads * how.padded_cells)


def _tokens(how: Configuration) -> int:
    return min(how.ubatch_tokens, MAX_BATCH_TOKENS, how.padded_cells)


def _reserved_tokens(how: Configuration) -> int:
    """llama.cpp reserves as many tokens for each slot (``graph_reserve``)."""
    return padded(_tokens(how), how.slots)


def _row_bytes(shape: ModelShape, how: Configuration) -> int:
    """The model's width for every token."""
    return _F32_BYTES * _reserved_tokens(how) * shape.hidden


def _inputs_bytes(shape: ModelShape, how: Configuration) -> int:
    """The mask, each token by each cell; without flash attention f32, and values' places, too.

    The values are transposed then, so that each of their elements has a place of its own.
    """
    tokens = _reserved_tokens(how)
    if how.flash_attention:
        return _F16_BYTES * how.padded_cells * tokens
    places = _INDEX_BYTES * tokens * shape.kv_heads * shape.head_size
    return _F32_BYTES * how.padded_cells * tokens + places


def _block_bytes(shape: ModelShape, how: Configuration) -> int:
    """In a feed-forward block: its input, its norm and the residual beside gate, up and product.

    Or in attention, beside queries, keys and values. With experts the allocator leaves a hole of
    one row, but not with a quantised cache, whose keys and values are rotated (seen in dry runs).
    """
    wide = 3 * shape.feed_forward * max(shape.experts_used, 1)
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_size + shape.hidden
    has_hole = shape.experts > 0 and how.kv_type == "f16" and how.flash_attention
    rows = 4 if has_hole else 3
    beside = _F32_BYTES * _reserved_tokens(how) * max(wide, attention)
    return rows * _row_bytes(shape, how) + beside


def _scores_bytes(shape: ModelShape, how: Configuration) -> int:
    """Without flash attention: every head's scores of each token by each cell.

    They stand behind the residual, the queries and one more row, or three with experts, whose
    block leaves its output further behind (seen in dry runs).
    """
    if how.flash_attention:
        return 0
    rows = 5 if shape.experts else 3
    scores = _F32_BYTES * _reserved_tokens(how) * shape.heads * how.padded_cells
    return rows * _row_bytes(shape, how) + scores


def _logits_bytes(shape: ModelShape, how: Configuration) -> int:
    outputs = _F32_BYTES * how.outputs_max * (shape.vocabulary + shape.hidden)
    return outputs + _row_bytes(shape, how)
