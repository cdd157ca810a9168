"""The header reader: what it reads, and what it says of files that are not what they claim."""

import contextlib
import os
import random
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from gguf.constants import GGML_QUANT_SIZES
from gguf_files import PIECES, U32, U64, key, raw, string, tensor, u32, u64, vocabulary, write_phi3
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import ModelFileError
from edged.models.gguf import ArraySummary, ValueType, check_model, read_header
from edged.models.gguf_format import GGML_TYPES, WINDOW_BYTES

Write = Callable[[bytes], Path]
INTERESTING = (
    0,
    1,
    2,
    31,
    33,
    255,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**60,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def test_reads_what_the_reference_reader_reads(model: Path):
    header = read_header(model)
    reference = gguf.GGUFReader(model)
    assert [
        (t.name, list(t.shape), t.type.id, t.offset_bytes, t.size_bytes) for t in header.tensors
    ] == [
        (t.name, list(t.shape), t.tensor_type, t.data_offset, t.n_bytes) for t in reference.tensors
    ]
    assert (header.version, header.alignment) == (3, 32)
    assert header.data_offset_bytes == reference.data_offset
    assert header.file_bytes == model.stat().st_size
    assert header.tensors_by_name["blk.1.ffn_up.weight"].row_bytes == 64 // 32 * 18


def test_says_what_a_model_is(model: Path):
    header = read_header(model)
    assert header.architecture == "phi3"
    assert header.name == "Phi-3 of random weights"
    assert header.quantisation == "Q4_0"
    assert header.context_length == 256
    assert header.get_float("phi3.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)


def test_quantisation_without_a_file_type_is_what_most_bytes_are_in(write: Write):
    tensors = (tensor("a", (32, 8), 2), tensor("b", (32,), 0, 160))
    assert read_header(write(raw(tensors=tensors))).quantisation == "Q4_0"


def test_name_falls_back_to_the_file(write: Write):
    assert read_header(write(raw())).name == "broken"


def test_arrays_are_passed_over_unless_asked_for(model: Path):
    tokens = vocabulary(PIECES)
    header = read_header(model)
    assert header.metadata["tokenizer.ggml.tokens"] == ArraySummary(ValueType.STRING, len(tokens))
    assert header.metadata["tokenizer.ggml.scores"] == ArraySummary(ValueType.FLOAT32, len(tokens))
    wanted = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
    kept = read_header(model, arrays=wanted)
    assert kept.metadata[wanted[0]] == tuple(token.text.encode() for token in tokens)
    assert kept.metadata[wanted[1]] == tuple(token.score for token in tokens)
    assert kept.metadata[wanted[2]] == tuple(token.type for token in tokens)
    assert kept.tensors == header.tensors


def test_spans_hold_the_bytes_of_a_value(model: Path):
    header = read_header(model)
    span = header.spans["phi3.block_count"]
    assert model.read_bytes()[span.start : span.end] == u32(U32) + u32(2)


def test_every_scalar_type(write: Write):
    path = write(
        raw(
            key("u8", 0, b"\xff"),
            key("i8", 1, b"\xff"),
            key("u16", 2, b"\xff\xff"),
            key("i16", 3, b"\xff\xff"),
            key("u32", 4, u32(2**32 - 1)),
            key("i32", 5, u32(2**32 - 1)),
            key("f32", 6, struct.pack("<f", 0.5)),
            key("bool", 7, b"\1"),
            key("string", 8, string("käse")),
            key("u64", 10, u64(2**64 - 1)),
            key("i64", 11, u64(2**64 - 1)),
            key("f64", 12, struct.pack("<d", 0.1)),
        )
    )
    assert dict(read_header(path).metadata) == {
        "u8": 255,
        "i8": -1,
        "u16": 65535,
        "i16": -1,
        "u32": 2**32 - 1,
        "i32": -1,
        "f32": 0.5,
        "bool": True,
        "string": "käse",
        "u64": 2**64 - 1,
        "i64": -1,
        "f64": 0.1,
    }


def test_typed_getters_name_the_key(write: Write):
    header = read_header(write(raw(key("flag", 7, b"\1"), key("text", 8, string("x")))))
    for getter, wrong in (
        (header.get_int, "flag"),
        (header.get_float, "text"),
        (header.get_str, "flag"),
        (header.get_bool, "text"),
        (header.get_int, "absent"),
    ):
        with pytest.raises(ModelFileError, match=wrong):
            getter(wrong)
    assert header.get_int("absent", 5) == 5
    assert header.get_bool("flag") is True


def test_tensor_types_agree_with_the_reference():
    ours = {t.id: (t.name, t.block_weights, t.block_bytes) for t in GGML_TYPES.values()}
    for type_, (weights, size) in GGML_QUANT_SIZES.items():
        if type_.name != "Q8_1":  # an intermediate format, whose size the package has wrong
            assert ours[type_] == (type_.name, weights, size)


def test_version_2_and_a_larger_alignment(tmp_path: Path):
    path = write_phi3(tmp_path / "aligned.gguf", alignment=4096)
    path.write_bytes(b"GGUF" + u32(2) + path.read_bytes()[8:])
    header = read_header(path)
    check_model(header)
    assert (header.version, header.alignment) == (2, 4096)
    assert all(tensor.offset_bytes % 4096 == 0 for tensor in header.tensors)


def test_a_vocabulary_of_200_000_tokens_with_merges_takes_less_than_300_ms(write: Write):
    tokens = b"".join(string(f"token{i}") for i in range(200_000))
    merges = b"".join(string(f"tok en{i}") for i in range(200_000))
    path = write(
        raw(
            key("tokenizer.ggml.tokens", 9, u32(8) + u64(200_000) + tokens),
            key("tokenizer.ggml.scores", 9, u32(6) + u64(200_000) + bytes(800_000)),
            key("tokenizer.ggml.merges", 9, u32(8) + u64(200_000) + merges),
            key("last", 4, u32(7)),
        )
    )
    times = []
    for _ in range(3):
        began = time.perf_counter()
        header = read_header(path)
        times.append(time.perf_counter() - began)
    assert header.get_int("last") == 7
    assert min(times) < 0.3


def test_strings_longer_than_the_window_are_passed_over(write: Write):
    strings = string("a" * (WINDOW_BYTES * 2)) + string("") + string("b" * (WINDOW_BYTES - 20))
    path = write(raw(key("a", 9, u32(8) + u64(3) + strings), key("b", 4, u32(9))))
    assert read_header(path).get_int("b") == 9
    assert len(read_header(path, arrays=["a"]).metadata["a"]) == 3


MALFORMED = {
    "empty": (b"", "empty"),
    "magic": (b"GGML" + bytes(100), "not a GGUF file"),
    "only the magic": (b"GGUF", "the version"),
    "version 1": (raw(version=1), "version 1"),
    "version 4": (raw(version=4), "version 4"),
    "version 0": (raw(version=0), "version 0"),
    "big-endian": (b"GGUF\0\0\0\3" + bytes(100), "big-endian"),
    "2^60 tensors": (raw(counts=(2**60, 0)), "1152921504606846976 tensors"),
    "2^60 keys": (raw(counts=(0, 2**60)), "1152921504606846976 metadata keys"),
    "more keys than bytes": (b"GGUF" + u32(3) + u64(0) + u64(9), "only 0 are left"),
    "key past the end": (raw(u64(2**62), counts=(0, 1)), "claims 4611686018427387904 bytes"),
    "key not UTF-8": (raw(key(b"\xff\xfe", U32, u32(1))), "not UTF-8"),
    "key empty": (raw(key("", U32, u32(1))), "empty name"),
    "key with NUL": (raw(key("a\0b", U32, u32(1))), "NUL"),
    "key twice": (raw(key("a", U32, u32(1)), key("a", U32, u32(1))), "twice"),
    "unknown value type": (raw(key("a", 13, u32(1))), "unknown value type 13"),
    "text past the end": (raw(key("a", 8, u64(2**63) + b"x")), "a claims 9223372036854775808"),
    "text of 2 MiB": (raw(key("a", 8, string("x" * (2 << 20)))), "2097152 bytes"),
    "text not UTF-8": (raw(key("a", 8, string(b"\xc3"))), "not UTF-8"),
    "9 MiB of text": (
        raw(*(key(f"k{i}", 8, string("x" * (1 << 20))) for i in range(9))),
        "bytes of text",
    ),
    "bool of 2": (raw(key("a", 7, b"\2")), "true or false"),
    "array of arrays": (raw(key("a", 9, u32(9) + u64(1) + u32(4) + u64(0))), "array of arrays"),
    "array of an unknown type": (raw(key("a", 9, u32(99) + u64(1))), "unknown value type 99"),
    "array past the end": (raw(key("a", 9, u32(4) + u64(2**60))), "1152921504606846976 elements"),
    "strings past the end": (raw(key("a", 9, u32(8) + u64(2**60))), "truncated"),
    "string in array past the end": (
        raw(key("a", 9, u32(8) + u64(2) + string("x") + u64(2**61))),
        "truncated",
    ),
    "3 million strings": (
        raw(key("a", 9, u32(8) + u64(3_000_000) + bytes(24_000_000))),
        "more than 2097152 strings",
    ),
    "alignment 0": (raw(key("general.alignment", U32, u32(0))), "power of two"),
    "alignment 48": (raw(key("general.alignment", U32, u32(48))), "power of two"),
    "alignment of 64 bits": (raw(key("general.alignment", U64, u64(32))), "general.alignment"),
    "alignment a text": (raw(key("general.alignment", 8, string("32"))), "general.alignment"),
    "tensor name empty": (raw(tensors=(tensor(""),)), "0 bytes"),
    "tensor name of 64 bytes": (raw(tensors=(tensor("x" * 64),)), "64 bytes"),
    "tensor name not UTF-8": (raw(tensors=(tensor(b"\xff"),)), "not UTF-8"),
    "tensor twice": (raw(tensors=(tensor("a"), tensor("a", offset=128))), "twice"),
    "no dimension": (raw(tensors=(tensor("a", ()),)), "0 dimensions"),
    "5 dimensions": (raw(tensors=(tensor("a", (1,) * 5),)), "5 dimensions"),
    "2^32-1 dimensions": (raw(string("a") + u32(2**32 - 1), counts=(1, 0)), "4294967295 dim"),
    "zero dimension": (raw(tensors=(tensor("a", (32, 0)),)), "impossible shape"),
    "negative dimension": (raw(tensors=(tensor("a", (32, 2**64 - 1)),)), "impossible shape"),
    "product over 64 bits": (raw(tensors=(tensor("a", (2**62, 2**62)),)), "truncated"),
    "product that wraps to 0": (raw(tensors=(tensor("a", (2**32, 2**32)),)), "truncated"),
    "half a block": (raw(tensors=(tensor("a", (33,), 2),)), "no multiple of the 32"),
    "removed tensor type": (raw(tensors=(tensor("a", type_=4),)), "unknown tensor type 4"),
    "unknown tensor type": (raw(tensors=(tensor("a", type_=2**31),)), "unknown tensor type"),
    "unaligned offset": (raw(tensors=(tensor("a", offset=8),)), "no multiple of 32"),
    "offset past the end": (raw(tensors=(tensor("a", offset=2**20),)), "are missing"),
    "offset near 2^64": (raw(tensors=(tensor("a", offset=2**64 - 32),)), "are missing"),
    "overlap": (raw(tensors=(tensor("a", (64,)), tensor("b", offset=128))), "overlap"),
    "same place": (raw(tensors=(tensor("a"), tensor("b"))), "overlap"),
    "data truncated": (raw(tensors=(tensor("a", (4096,)),)), "12288 are missing"),
    "no data at all": (raw(tensors=(tensor("a"),), data=0), "are missing"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_clear_errors(case: str, write: Write):
    content, message = MALFORMED[case]
    path = write(content)
    with pytest.raises(ModelFileError, match=message) as failure:
        read_header(path, arrays=["a"])
    assert str(path) in str(failure.value)
    with pytest.raises(ModelFileError):
        read_header(path)


def test_a_folder_a_pipe_and_a_missing_file_are_clear_errors(tmp_path: Path):
    with pytest.raises(ModelFileError, match="a folder"):
        read_header(tmp_path)
    with pytest.raises(ModelFileError, match="No such file"):
        read_header(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="NUL"):
        read_header(str(tmp_path) + "/a\0b.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_header(tmp_path / "pipe.gguf")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_a_clear_error(write: Write):
    path = write(raw())
    path.chmod(0)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_header(path)


def test_truncated_anywhere_is_an_error(model: Path, write: Write):
    whole = model.read_bytes()
    for length in range(0, len(whole) - 1, 211):
        with pytest.raises(ModelFileError):
            read_header(write(whole[:length]))
    with pytest.raises(ModelFileError, match="1 are missing"):
        read_header(write(whole[:-1]))


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=1000)
def test_random_bytes_never_surprise(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "random.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + content)
    with contextlib.suppress(ModelFileError):
        check_model(read_header(path, arrays=["a"]))


def mutate(content: bytes, dice: random.Random, header_bytes: int) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        at = dice.randrange(header_bytes)
        match dice.randrange(6):
            case 0:
                changed[at] ^= 1 << dice.randrange(8)
            case 1:
                changed[at] = dice.randrange(256)
            case 2:
                struct.pack_into("<Q", changed, at, dice.choice(INTERESTING))
            case 3:
                struct.pack_into("<I", changed, at, dice.choice(INTERESTING) & 0xFFFFFFFF)
            case 4:
                del changed[at : at + dice.choice((1, 4, 8, 64))]
            case _:
                source = dice.randrange(header_bytes)
                changed[at:at] = changed[source : source + dice.choice((1, 4, 8, 64))]
    if not dice.randrange(20):
        del changed[dice.randrange(len(changed)) :]
    return bytes(changed)


def survive_mutations(model: Path, path: Path, count: int, seed: int) -> None:
    content = model.read_bytes()
    header_bytes = read_header(model).data_offset_bytes
    dice = random.Random(seed)
    for number in range(count):
        path.write_bytes(mutate(content, dice, header_bytes))
        began = time.perf_counter()
        with contextlib.suppress(ModelFileError):
            check_model(read_header(path, arrays=["tokenizer.ggml.scores"] * (number % 2)))
        assert time.perf_counter() - began < 1


def test_mutated_files_are_read_or_refused(model: Path, tmp_path: Path):
    survive_mutations(model, tmp_path / "mutant.gguf", 2000, seed=1)


@pytest.mark.campaign
def test_100_000_mutated_files_are_read_or_refused(model: Path, tmp_path: Path):
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    survive_mutations(model, tmp_path / "mutant.gguf", 100_000, seed=2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 << 10
