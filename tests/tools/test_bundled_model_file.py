"""The bundled GGUF says what llama.cpp and edged need to know, and stays small."""

from __future__ import annotations

from pathlib import Path

import gguf
import jinja2
import pytest

ASSETS = Path(__file__).parents[2] / "edged" / "assets"
MODEL = ASSETS / "edged-tiny-phi3-q4_0.gguf"
SPECIAL = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(MODEL)


def field(reader: gguf.GGUFReader, key: str) -> object:
    found = reader.get_field(key)
    assert found is not None, key
    return found.contents()


def test_it_is_at_most_six_megabytes() -> None:
    assert MODEL.stat().st_size <= 6_000_000


def test_it_has_a_card() -> None:
    assert "MIT" in (ASSETS / "MODEL_CARD.md").read_text()


def test_matrices_are_q4_0_and_norms_are_f32(reader: gguf.GGUFReader) -> None:
    kinds = {(len(tensor.shape), tensor.tensor_type.name) for tensor in reader.tensors}
    assert kinds == {(1, "F32"), (2, "Q4_0")}


def test_the_header_names_a_phi3_of_3_to_8_million_parameters(reader: gguf.GGUFReader) -> None:
    assert field(reader, "general.architecture") == "phi3"
    assert field(reader, "general.license") == "MIT"
    assert 3e6 < sum(tensor.n_elements for tensor in reader.tensors) < 8e6


def test_llama_cpp_will_swallow_white_space_after_its_special_tokens(
    reader: gguf.GGUFReader,
) -> None:
    assert "phi3" in str(field(reader, "general.name"))


def test_special_tokens_are_single_control_tokens(reader: gguf.GGUFReader) -> None:
    tokens = field(reader, "tokenizer.ggml.tokens")
    kinds = field(reader, "tokenizer.ggml.token_type")
    assert isinstance(tokens, list)
    assert isinstance(kinds, list)
    for token in SPECIAL:
        assert kinds[tokens.index(token)] == gguf.TokenType.CONTROL
    assert kinds.count(gguf.TokenType.BYTE) == 256
    assert tokens[field(reader, "tokenizer.ggml.eot_token_id")] == "<|end|>"
    assert tokens[field(reader, "tokenizer.ggml.bos_token_id")] == "<s>"


def test_the_chat_template_keeps_every_message_and_adds_no_bos(reader: gguf.GGUFReader) -> None:
    template = jinja2.Template(str(field(reader, "tokenizer.chat_template")), autoescape=False)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    assert template.render(messages=messages, add_generation_prompt=True, bos_token="<s>") == (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n"
    )
