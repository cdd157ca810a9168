"""Writes the trained model as a 4-bit GGUF that llama.cpp loads as `phi3`."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType

from tools.tiny_model.model import Shape
from tools.tiny_model.vocabulary import BOS, SPECIAL, Vocabulary

# llama.cpp recognises Phi-3's habit of swallowing white space after special tokens by this name.
NAME = "edged-tiny-phi3"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '<|end|>\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '<|end|>\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def export(checkpoint: Path, vocabulary: Vocabulary, out: Path) -> int:
    """Write the GGUF; returns its size in bytes."""
    saved = torch.load(checkpoint, weights_only=True)
    shape = Shape(**saved["shape"])
    writer = gguf.GGUFWriter(out, "phi3")
    _describe(writer, shape)
    _add_vocabulary(writer, vocabulary)
    for name, weight in saved["weights"].items():
        _add_tensor(writer, _gguf_name(name), weight.float().numpy())
    out.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out.stat().st_size


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name(NAME)
    writer.add_description("edged's demonstration model: home control and small talk")
    writer.add_license("MIT")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    pieces = vocabulary.pieces
    tokens = [pieces.id_to_piece(i) for i in range(len(pieces))]
    scores = [pieces.get_score(i) for i in range(len(pieces))]
    types = [_type(vocabulary, i) for i in range(len(pieces))]
    tokens += SPECIAL
    scores += [-1000.0] * len(SPECIAL)
    types += [TokenType.CONTROL] * len(SPECIAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(vocabulary.special["<|endoftext|>"])
    writer.add_eot_token_id(vocabulary.special["<|end|>"])
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(vocabulary.special["<|endoftext|>"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _type(vocabulary: Vocabulary, i: int) -> TokenType:
    if vocabulary.pieces.is_unknown(i):
        return TokenType.UNKNOWN
    if vocabulary.pieces.is_control(i):
        return TokenType.CONTROL
    if vocabulary.pieces.is_byte(i):
        return TokenType.BYTE
    return TokenType.NORMAL


def _gguf_name(name: str) -> str:
    """`layers.3.attn_qkv.weight` → `blk.3.attn_qkv.weight`."""
    return "blk." + name.removeprefix("layers.") if name.startswith("layers.") else name


def _add_tensor(writer: gguf.GGUFWriter, name: str, weight: np.ndarray) -> None:
    if weight.ndim == 1:
        writer.add_tensor(name, weight.astype(np.float32))
        return
    kind = GGMLQuantizationType.Q4_0
    writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
