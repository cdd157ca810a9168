"""GGUF files for tests: small models by the ggml project's writer, and files put together
byte by byte where no writer would write them."""

import struct
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
PHI3_SPECIAL = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")


@dataclass(frozen=True)
class Token:
    text: str
    score: float = 0.0
    type: int = NORMAL


def vocabulary(pieces: tuple[str, ...] = ()) -> list[Token]:
    """Specials, one token a byte, then the pieces (earlier ones merge first), then Phi-3's."""
    return [
        Token("<unk>", type=UNKNOWN),
        Token("<s>", type=CONTROL),
        Token("</s>", type=USER_DEFINED),
        *(Token(f"<0x{byte:02X}>", type=BYTE) for byte in range(256)),
        *(Token(piece, -float(rank)) for rank, piece in enumerate(pieces)),
        *(Token(text, type=CONTROL) for text in PHI3_SPECIAL),
    ]


PIECES = ("he", "ll", "hell", "hello", "▁hello", "▁", "h", "e", "l", "o", "w", "é", "世")


@dataclass(frozen=True)
class Shape:
    hidden: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 2
    feed_forward: int = 128
    context: int = 256
    rope_base: float = 10000.0

    @property
    def head(self) -> int:
        return self.hidden // self.heads


def write_vocabulary(writer: gguf.GGUFWriter, tokens: list[Token]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.text for token in tokens])
    writer.add_token_scores([token.score for token in tokens])
    writer.add_token_types([token.type for token in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(next(i for i, t in enumerate(tokens) if t.text == "<|endoftext|>"))
    writer.add_unk_token_id(0)


def write_vocabulary_file(
    path: Path, tokens: list[Token], *, name: str = "Phi3", **keys: bool
) -> Path:
    """A file with a vocabulary and no tensors, as the public test vocabularies are."""
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_name(name)
    write_vocabulary(writer, tokens)
    for key, value in keys.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    return _close(writer)


def write_phi3(
    path: Path,
    shape: Shape | None = None,
    *,
    tokens: list[Token] | None = None,
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_0,
    tied: bool = False,
    alignment: int = 32,
    texts: dict[str, str] | None = None,
    numbers: dict[str, int] | None = None,
    extra: dict[str, np.ndarray] | None = None,
    seed: int = 7,
) -> Path:
    """A Phi-3 model of that shape; ``texts``, ``numbers`` and ``extra`` tensors are added."""
    shape = shape or Shape()
    tokens = tokens or vocabulary(PIECES)
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_name("Phi-3 of random weights")
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    if "phi3.rope.dimension_count" not in (numbers or {}):
        writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_sliding_window(shape.context)
    for key, text in (texts or {}).items():
        writer.add_string(key, text)
    for key, number in (numbers or {}).items():
        writer.add_uint32(key, number)
    write_vocabulary(writer, tokens)
    random = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int, scale: float = 0.3) -> None:
        weights = random.normal(0, scale, (rows, columns)).astype(np.float32)
        writer.add_tensor(name, quantize(weights, quantisation), raw_dtype=quantisation)

    def norm(name: str) -> None:
        writer.add_tensor(name, random.uniform(0.5, 1.5, shape.hidden).astype(np.float32))

    matrix("token_embd.weight", len(tokens), shape.hidden, 1.0)
    norm("output_norm.weight")
    if not tied:
        matrix("output.weight", len(tokens), shape.hidden)
    for layer in range(shape.layers):
        norm(f"blk.{layer}.attn_norm.weight")
        rows = shape.hidden + 2 * shape.kv_heads * shape.head
        matrix(f"blk.{layer}.attn_qkv.weight", rows, shape.hidden)
        matrix(f"blk.{layer}.attn_output.weight", shape.hidden, shape.hidden)
        norm(f"blk.{layer}.ffn_norm.weight")
        matrix(f"blk.{layer}.ffn_up.weight", 2 * shape.feed_forward, shape.hidden)
        matrix(f"blk.{layer}.ffn_down.weight", shape.hidden, shape.feed_forward)
    for name, weights in (extra or {}).items():
        writer.add_tensor(name, weights)
    return _close(writer)


def _close(writer: gguf.GGUFWriter) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert writer.path is not None
    return Path(writer.path)


U32, U64 = 4, 10


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw)) + raw


def key(name: str | bytes, type_: int, value: bytes) -> bytes:
    return string(name) + u32(type_) + value


def tensor(
    name: str | bytes, shape: tuple[int, ...] = (32,), type_: int = 0, offset: int = 0
) -> bytes:
    return (
        string(name)
        + u32(len(shape))
        + b"".join(u64(length) for length in shape)
        + u32(type_)
        + u64(offset)
    )


def raw(
    *keys: bytes,
    tensors: tuple[bytes, ...] = (),
    counts: tuple[int, int] | None = None,
    version: int = 3,
    data: int = 4096,
) -> bytes:
    n_tensors, n_keys = counts or (len(tensors), len(keys))
    head = b"GGUF" + u32(version) + u64(n_tensors) + u64(n_keys) + b"".join(keys + tensors)
    return head + bytes(-len(head) % 32 + data)
