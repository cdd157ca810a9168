"""Decides whether a header describes a model that edged can serve.

Engines trust headers: where one lies about sizes, llama.cpp answers some of the lies with
an exception and others with an assertion that ends the process (both read in its source,
release of llama-cpp-python 0.3.36), and ctransformers ends the process for all. So what
they would trust is checked here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edged.errors import ModelFileError
from edged.models.gguf_format import ValueType
from edged.models.gguf_header import Header
from edged.models.gguf_vocabulary import check_vocabulary

ARCHITECTURES: Final = ("phi3", "phimoe", "llama")

_LIMITS: Final = {
    "block_count": 512,  # LLAMA_MAX_LAYERS
    "embedding_length": 1 << 17,
    "feed_forward_length": 1 << 20,
    "attention.head_count": 1 << 12,
    "attention.head_count_kv": 1 << 12,
    "attention.key_length": 1 << 14,
    "attention.value_length": 1 << 14,
    "context_length": 1 << 24,
    "expert_count": 512,  # LLAMA_MAX_EXPERTS
    "expert_used_count": 512,
    "rope.dimension_count": 1 << 14,
}
_ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope")
# Of other families; llama.cpp asserts that they agree with the rest of the header.
_UNSERVED: Final = ("expert_group_count", "expert_group_used_count", "nextn_predict_layers")
# Integers, doubles and the intermediate formats of ggml are no weights of a layer.
_NO_WEIGHTS: Final = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})

_Expected = tuple[str, tuple[int, ...], bool]


@dataclass(frozen=True)
class _Shape:
    """The sizes that a model's tensors follow from, in weights."""

    layers: int
    hidden: int
    feed_forward: int
    queries: int
    keys: int
    rotated: int
    experts: int
    vocabulary: int


def check_model(header: Header) -> None:
    """Raises ``ModelFileError`` unless ``header`` describes a whole model of a known kind.

    Checked: the architecture and its sizes, the tokenizer with its vocabulary, and the
    shape, type and place of every tensor that an engine loads.
    """
    architecture = header.architecture
    if architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{header.path}: the architecture {architecture!r} cannot be served; "
            f"known are {', '.join(ARCHITECTURES)}",
        )
    if header.metadata.get("split.count", 1) not in (0, 1):
        raise ModelFileError(
            f"{header.path}: is one part of a model split over several files; "
            "merge them first (llama-gguf-split --merge)",
        )
    shape = _check_sizes(header, architecture, check_vocabulary(header))
    if not header.tensors:
        raise ModelFileError(
            f"{header.path}: holds a vocabulary but no weights, so nothing can be generated",
        )
    known = set()
    for name, wanted, optional in _expected_tensors(header, architecture, shape):
        _check_tensor(header, name, wanted, optional=optional)
        known.add(name)
    for tensor in header.tensors:
        if tensor.name not in known:
            raise ModelFileError(
                f"{header.path}: the tensor {tensor.name} has no place in a {architecture} model "
                f"of {shape.layers} layers",
            )
    _check_layout(header)


def _check_sizes(header: Header, architecture: str, vocabulary: int) -> _Shape:
    layers = _size(header, architecture, "block_count")
    hidden = _size(header, architecture, "embedding_length")
    feed_forward = _size(header, architecture, "feed_forward_length")
    heads = _size(header, architecture, "attention.head_count")
    kv_heads = _size(header, architecture, "attention.head_count_kv", heads)
    _size(header, architecture, "context_length")
    if hidden % heads or heads % kv_heads:
        raise ModelFileError(
            f"{header.path}: {hidden} hidden weights, {heads} heads and {kv_heads} KV heads "
            "cannot be divided by one another",
        )
    head = _size(header, architecture, "attention.key_length", hidden // heads)
    value = _size(header, architecture, "attention.value_length", hidden // heads)
    rotated = _size(header, architecture, "rope.dimension_count", head)
    if value != head or (architecture != "llama" and head != hidden // heads):
        raise ModelFileError(
            f"{header.path}: keys of {head} and values of {value} weights a head do not belong "
            f"to {architecture} with {hidden // heads}",
        )
    if rotated > head or rotated % 2 or (architecture == "llama" and rotated != head):
        raise ModelFileError(f"{header.path}: {rotated} of {head} weights a head are rotated")
    scaling = header.get_str(f"{architecture}.rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        raise ModelFileError(f"{header.path}: unknown rope scaling {scaling!r}")
    if not 0 < header.get_float(f"{architecture}.attention.layer_norm_rms_epsilon") < 1:
        raise ModelFileError(
            f"{header.path}: {architecture}.attention.layer_norm_rms_epsilon "
            "should lie between 0 and 1"
        )
    return _Shape(
        layers=layers,
        hidden=hidden,
        feed_forward=feed_forward,
        queries=head * heads,
        keys=head * kv_heads,
        rotated=rotated,
        experts=_experts(header, architecture),
        vocabulary=vocabulary,
    )


def _experts(header: Header, architecture: str) -> int:
    moe = architecture == "phimoe"
    for name in _UNSERVED if moe else (*_UNSERVED, "expert_count", "expert_used_count"):
        if header.get_int(f"{architecture}.{name}", 0):
            raise ModelFileError(f"{header.path}: {architecture} with {name} is not served")
    if not moe:
        return 0
    experts = _size(header, architecture, "expert_count")
    used = _size(header, architecture, "expert_used_count")
    if used > experts:
        raise ModelFileError(f"{header.path}: uses {used} of {experts} experts")
    return experts


def _size(header: Header, architecture: str, name: str, default: int | None = None) -> int:
    key = f"{architecture}.{name}"
    value = header.get_int(key, default)
    span = header.spans.get(key)
    if span and span.type is not ValueType.UINT32:
        raise ModelFileError(f"{header.path}: {key} is of type {span.type.name}, not UINT32")
    if not 0 < value <= _LIMITS[name]:
        raise ModelFileError(f"{header.path}: {key} is {value}; 1 to {_LIMITS[name]} are possible")
    return value


def _check_layout(header: Header) -> None:
    """Tensors stand back to back, as every engine wants them."""
    expected = header.data_offset_bytes
    for tensor in header.tensors:
        if tensor.offset_bytes != expected:
            raise ModelFileError(
                f"{header.path}: {tensor.name} lies at byte {tensor.offset_bytes} instead of "
                f"{expected}; the file is damaged, fetch it again",
            )
        expected += -(-tensor.size_bytes // header.alignment) * header.alignment


def _expected_tensors(header: Header, architecture: str, shape: _Shape) -> Iterator[_Expected]:
    """Name, shape and whether it may be absent (llama.cpp, src/models/)."""
    moe = architecture == "phimoe"
    hidden, vocabulary = shape.hidden, shape.vocabulary
    yield "token_embd.weight", (hidden, vocabulary), False
    yield "output_norm.weight", (hidden,), False
    yield "output.weight", (hidden, vocabulary), not moe  # absent: tied to the embedding
    for name in ("rope_freqs", "rope_factors_long", "rope_factors_short"):
        yield f"{name}.weight", (shape.rotated // 2,), True
    if moe:
        yield "output_norm.bias", (hidden,), False
        yield "output.bias", (vocabulary,), False
    for layer in range(shape.layers):
        for name, wanted, optional in (
            ("attn_norm.weight", (hidden,), False),
            ("ffn_norm.weight", (hidden,), False),
            ("attn_output.weight", (shape.queries, hidden), False),
            *_attention(header, f"blk.{layer}.attn_qkv.weight", shape),
            *_PARTS[architecture](shape),
        ):
            yield f"blk.{layer}.{name}", wanted, optional


def _attention(header: Header, fused: str, shape: _Shape) -> Iterator[_Expected]:
    parts = {"q": shape.queries, "k": shape.keys, "v": shape.keys}
    rows = sum(parts.values())
    if fused in header.tensors_by_name or header.architecture == "phi3":
        yield "attn_qkv.weight", (shape.hidden, rows), False
        yield "attn_qkv.bias", (rows,), True
    else:
        for part, rows in parts.items():
            yield f"attn_{part}.weight", (shape.hidden, rows), False
    for part, rows in parts.items():
        yield f"attn_{part}.bias", (rows,), True


def _phi3(shape: _Shape) -> Iterator[_Expected]:
    yield "ffn_up.weight", (shape.hidden, 2 * shape.feed_forward), False  # gate above up
    yield "ffn_down.weight", (shape.feed_forward, shape.hidden), False


def _llama(shape: _Shape) -> Iterator[_Expected]:
    hidden, inner = shape.hidden, shape.feed_forward
    yield "attn_output.bias", (hidden,), True
    for part, columns, rows in (
        ("gate", hidden, inner),
        ("up", hidden, inner),
        ("down", inner, hidden),
    ):
        yield f"ffn_{part}.weight", (columns, rows), False
        yield f"ffn_{part}.bias", (rows,), True


def _phimoe(shape: _Shape) -> Iterator[_Expected]:
    hidden, inner, experts = shape.hidden, shape.feed_forward, shape.experts
    for part in ("attn_norm", "ffn_norm", "attn_output"):
        yield f"{part}.bias", (hidden,), False
    yield "ffn_gate_inp.weight", (hidden, experts), False
    yield "ffn_gate_exps.weight", (hidden, inner, experts), False
    yield "ffn_up_exps.weight", (hidden, inner, experts), False
    yield "ffn_down_exps.weight", (inner, hidden, experts), False


_PARTS: Final = {"phi3": _phi3, "llama": _llama, "phimoe": _phimoe}


def _check_tensor(header: Header, name: str, wanted: tuple[int, ...], *, optional: bool) -> None:
    tensor = header.tensors_by_name.get(name)
    if tensor is None:
        if optional:
            return
        raise ModelFileError(f"{header.path}: the tensor {name} is missing")
    if tensor.shape != wanted:
        raise ModelFileError(
            f"{header.path}: {name} has the shape {list(tensor.shape)}, "
            f"but the header's sizes ask for {list(wanted)}",
        )
    if len(wanted) == 1 and tensor.type.name != "F32":
        raise ModelFileError(f"{header.path}: {name} is {tensor.type.name}; engines want F32 here")
    if tensor.type.name in _NO_WEIGHTS:
        raise ModelFileError(f"{header.path}: {name} is {tensor.type.name}, which holds no weights")
