"""Which headers describe a model that can be served, and what is said of the others."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import (
    PIECES,
    U32,
    Shape,
    key,
    string,
    u32,
    u64,
    vocabulary,
    write_phi3,
    write_vocabulary_file,
)

from edged.errors import ModelFileError
from edged.models.gguf import check_model, read_header

Write = Callable[[bytes], Path]


def test_models_of_the_known_shapes_pass(tmp_path: Path):
    for index, (shape, tied) in enumerate(
        [(Shape(), False), (Shape(heads=4, kv_heads=1), False), (Shape(layers=1), True)]
    ):
        check_model(read_header(write_phi3(tmp_path / f"{index}.gguf", shape, tied=tied)))


def test_a_vocabulary_alone_is_no_model(tmp_path: Path):
    sizes = {
        "context_length": 256,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "block_count": 2,
        "attention.head_count": 2,
    }
    writer_path = write_vocabulary_file(tmp_path / "v.gguf", vocabulary(PIECES))
    content = writer_path.read_bytes()
    keys = [key(f"phi3.{name}", U32, u32(size)) for name, size in sizes.items()]
    keys.append(key("phi3.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)))
    n_keys = struct.unpack_from("<Q", content, 16)[0]
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(content[:16] + u64(n_keys + len(keys)) + b"".join(keys) + content[24:])
    header = read_header(path)
    assert header.tensors == ()
    with pytest.raises(ModelFileError, match="no weights"):
        check_model(header)


def renamed(model: Path, old: str, new: str) -> bytes:
    """The model with a key, a name or a text of the same length in another's place."""
    assert len(old) == len(new)
    content = model.read_bytes()
    assert old.encode() in content
    return content.replace(string(old), string(new), 1)


def patched(model: Path, name: str, number: int) -> bytes:
    content = bytearray(model.read_bytes())
    struct.pack_into("<I", content, read_header(model).spans[name].start + 4, number)
    return bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_a_missing_size_is_named(model: Path, write: Write, name: str):
    path = write(renamed(model, f"phi3.{name}", f"phi9.{name}"))
    with pytest.raises(ModelFileError, match=f"phi3.{name}"):
        check_model(read_header(path))


@pytest.mark.parametrize("number", [0, 1, 3, 2**31, 2**32 - 1])
@pytest.mark.parametrize(
    "name",
    [
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "attention.head_count",
        "attention.head_count_kv",
        "rope.dimension_count",
    ],
)
def test_a_size_that_lies_is_refused(model: Path, write: Write, name: str, number: int):
    with pytest.raises(ModelFileError, match=r"broken.gguf: "):
        check_model(read_header(write(patched(model, f"phi3.{name}", number))))


def test_a_context_beyond_reason_is_refused(model: Path, write: Write):
    with pytest.raises(ModelFileError, match=r"phi3.context_length is 4294967295"):
        check_model(read_header(write(patched(model, "phi3.context_length", 2**32 - 1))))


def test_an_unknown_architecture_is_named(model: Path, write: Write):
    with pytest.raises(ModelFileError, match=r"'phi9'.*known are phi3, phimoe, llama"):
        check_model(read_header(write(renamed(model, "phi3", "phi9"))))


def test_a_part_of_a_split_model_is_refused(tmp_path: Path):
    path = write_phi3(tmp_path / "part.gguf", numbers={"split.count": 3})
    with pytest.raises(ModelFileError, match="merge them"):
        check_model(read_header(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer.ggml.model", "tokenizer is missing"),
        ("tokenizer.ggml.tokens", "tokens is missing"),
        ("tokenizer.ggml.scores", "scores is missing"),
        ("tokenizer.ggml.token_type", "token_type is missing"),
    ],
)
def test_a_missing_tokenizer_is_named(model: Path, write: Write, name: str, message: str):
    with pytest.raises(ModelFileError, match=message):
        check_model(read_header(write(renamed(model, name, "X" + name[1:]))))


def test_an_unknown_tokenizer_is_refused(model: Path, write: Write):
    entry = string("tokenizer.ggml.model") + u32(8)
    content = model.read_bytes()
    assert entry + string("llama") in content
    path = write(content.replace(entry + string("llama"), entry + string("bpe99")))
    with pytest.raises(ModelFileError, match="tokenizer is bpe99"):
        check_model(read_header(path))


def test_a_special_token_outside_the_vocabulary_is_refused(model: Path, write: Write):
    with pytest.raises(ModelFileError, match="bos token is 5000 of"):
        check_model(read_header(write(patched(model, "tokenizer.ggml.bos_token_id", 5000))))


def test_a_token_that_stands_twice_is_refused(model: Path, write: Write):
    with pytest.raises(ModelFileError, match=r"1 of .* text of another"):
        check_model(read_header(write(renamed(model, "hell", "h\0ll"))))


def test_a_phi3_by_name_without_its_tokens_is_refused(model: Path, write: Write):
    with pytest.raises(ModelFileError, match=r"no token <\|endoftext\|>"):
        check_model(read_header(write(renamed(model, "<|endoftext|>", "<|endofstory|"))))


@pytest.mark.parametrize("arrays", [(), ("tokenizer.ggml.tokens",)])
def test_a_vocabulary_without_a_byte_is_refused(model: Path, write: Write, arrays: tuple[str, ...]):
    path = write(renamed(model, "<0xC3>", "<0xc3>"))
    with pytest.raises(ModelFileError, match="first is 0xC3"):
        check_model(read_header(path, arrays=arrays))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("blk.1.ffn_norm.weight", "blk.2.ffn_norm.weight", "blk.1.ffn_norm.weight is missing"),
        ("blk.0.attn_qkv.weight", "blk.0.attn_qqq.weight", "blk.0.attn_qkv.weight is missing"),
        ("output.weight", "outpux.weight", "outpux.weight has no place"),
        ("token_embd.weight", "token_embX.weight", "token_embd.weight is missing"),
    ],
)
def test_a_missing_tensor_is_named(model: Path, write: Write, old: str, new: str, message: str):
    with pytest.raises(ModelFileError, match=message):
        check_model(read_header(write(renamed(model, old, new))))


def test_a_vocabulary_of_another_size_than_the_embedding_is_refused(tmp_path: Path):
    model = write_phi3(tmp_path / "m.gguf")
    content = model.read_bytes()
    count = len(vocabulary(PIECES))
    shape = string("token_embd.weight") + u32(2) + u64(64)
    assert shape + u64(count) in content
    model.write_bytes(content.replace(shape + u64(count), shape + u64(count - 1)))
    with pytest.raises(ModelFileError, match=r"token_embd.weight has the shape"):
        check_model(read_header(model))


def test_a_norm_in_blocks_is_refused(model: Path, write: Write):
    norm = string("output_norm.weight") + u32(1) + u64(64)
    content = model.read_bytes()
    assert norm + u32(0) in content
    with pytest.raises(ModelFileError, match=r"output_norm.weight is Q4_0"):
        check_model(read_header(write(content.replace(norm + u32(0), norm + u32(2)))))


def test_a_gap_between_tensors_is_refused(model: Path, write: Write):
    header = read_header(model)
    last = header.tensors[-1]
    entry = string(last.name) + u32(2) + u64(last.shape[0]) + u64(last.shape[1]) + u32(2)
    offset = last.offset_bytes - header.data_offset_bytes
    content = model.read_bytes()
    assert entry + u64(offset) in content
    moved = content.replace(entry + u64(offset), entry + u64(offset + 32)) + bytes(32)
    with pytest.raises(ModelFileError, match="instead of"):
        check_model(read_header(write(moved)))


@pytest.mark.parametrize(
    ("texts", "numbers", "message"),
    [
        ({"phi3.rope.scaling.type": "spiral"}, {}, "rope scaling 'spiral'"),
        ({}, {"phi3.rope.dimension_count": 33}, "33 of 32"),
        ({}, {"phi3.rope.dimension_count": 15}, "15 of 32"),
        ({}, {"phi3.attention.key_length": 16}, "do not belong"),
        ({}, {"phi3.expert_count": 8}, "with expert_count"),
        ({}, {"phi3.nextn_predict_layers": 1}, "with nextn_predict_layers"),
    ],
)
def test_keys_that_contradict_the_rest_are_refused(
    tmp_path: Path, texts: dict[str, str], numbers: dict[str, int], message: str
):
    path = write_phi3(tmp_path / "m.gguf", texts=texts, numbers=numbers)
    with pytest.raises(ModelFileError, match=message):
        check_model(read_header(path))
