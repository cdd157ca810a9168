"""llama.cpp's own tokenizer behind our protocol."""

import ctypes
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.models.bundled import BUNDLED_MODEL
from edged.models.gguf import read_header

lib = pytest.importorskip("llama_cpp")

from edged.engine.llama_cpp import LlamaVocabulary, _drop_page_cache, _set  # noqa: E402 (needs the library)

SHARED = Path(__file__).parents[3] / "shared/data/ggml-vocab-phi-3.gguf"
SEPARATOR = "\n__ggml_vocab_test__\n"


def load(path: Path) -> Iterator[LlamaVocabulary]:
    parameters = lib.llama_model_default_params()
    _set(parameters, vocab_only=True, load_mode=lib.LLAMA_LOAD_MODE_NONE)
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    assert model
    yield LlamaVocabulary(model)
    lib.llama_model_free(model)


@pytest.fixture
def real() -> Iterator[LlamaVocabulary]:
    if not SHARED.exists():
        pytest.skip("needs ../shared/data")
    yield from load(SHARED)


@pytest.fixture
def bundled() -> Iterator[LlamaVocabulary]:
    yield from load(BUNDLED_MODEL)


def test_the_public_expectations_of_phi3_hold(real: LlamaVocabulary):
    texts = SHARED.with_name(SHARED.name + ".inp").read_text().split(SEPARATOR)
    lines = SHARED.with_name(SHARED.name + ".out").read_text().split("\n")
    expected = [[int(token) for token in line.split()] for line in lines]
    assert len(expected) == 47
    assert [real.tokenise(text, parse_special=False) for text in texts] == expected


def test_special_tokens_are_single_ids_only_where_they_are_parsed(bundled: LlamaVocabulary):
    (user,) = bundled.tokenise("<|user|>\n", parse_special=True)
    assert bundled.token_bytes(user) == b""
    as_text = bundled.tokenise("<|user|>", parse_special=False)
    assert user not in as_text
    assert b"".join(map(bundled.token_bytes, as_text)) == b" <|user|>"


def test_every_byte_survives_a_round_trip(bundled: LlamaVocabulary):
    text = "Grüße, 世界 🌍 \t\x01 ខ្មែរ"
    ids = bundled.tokenise(text, parse_special=False)
    assert b"".join(map(bundled.token_bytes, ids)).decode() == f" {text}"


def test_a_field_that_the_library_does_not_have_is_refused():
    class Parameters(ctypes.Structure):
        _fields_ = [("n_ctx", ctypes.c_uint32)]

    parameters = Parameters()
    _set(parameters, n_ctx=5)
    assert parameters.n_ctx == 5
    with pytest.raises(AttributeError, match="use_mmap"):
        _set(parameters, use_mmap=False)


def cached_pages(path: Path) -> int:
    """Pages of a file that are in the page cache (mincore(2))."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as view:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(view)))
        assert ctypes.CDLL(None).mincore(start, ctypes.c_size_t(size), pages) == 0
    return sum(page & 1 for page in pages)


def test_a_file_that_was_read_leaves_the_page_cache(tmp_path: Path):
    path = tmp_path / "model.gguf"
    shutil.copy(BUNDLED_MODEL, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        file.read()
    before = cached_pages(path)
    _drop_page_cache(read_header(path))

    assert before * mmap.PAGESIZE > path.stat().st_size // 2
    if cached_pages(path) == before:
        pytest.skip("temporary files are in memory here, so their pages cannot be dropped")
    assert cached_pages(path) < before // 10
