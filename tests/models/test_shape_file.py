"""Shape files: what a header says of them, and that llama.cpp computes with them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from edged.cli.main import cli
from edged.engine.chat import ChatEncoder
from edged.engine.frames import Load
from edged.engine.protocol import BatchChunk, Engine, Logits
from edged.engine.registry import open_engine
from edged.errors import EdgedError
from edged.messages import ChatMessage
from edged.models.catalogue import Entry, read_catalogue
from edged.models.gguf import check_model, read_header
from edged.models.quantisation import Quantisation
from edged.models.shape import shape_of
from edged.models.shape_file import _header, write_shape_file

SMALL = {"layers": 8, "heads": 4, "kv_heads": 2, "head_size": 64, "hidden": 256}
KINDS = [
    ("phi-3-mini-4k-instruct", "q4_0"),
    ("phi-3.5-mini-instruct", "q4_k_m"),
    ("phi-4-mini-instruct", "q4_0"),
    ("phi-4", "q4_k_m"),
    ("phi-3.5-moe-instruct", "q8_0"),
]
ASKED = [ChatMessage("user", "Is anyone there?")]


def small(name: str) -> Entry:
    """The entry of that name with little behind its vocabulary."""
    entry = read_catalogue().find(name)
    rotated = 48 if entry.rotated < entry.head_size else 64
    changes = {**SMALL, "rotated": rotated, "feed_forward": 512}
    return Entry.model_validate({**entry.model_dump(), **changes})


def load(path: Path) -> Engine:
    return open_engine(Load("llama_cpp", str(path), str(path.parent), 256, 1, 2, 0))


class Keep:
    """A picker that keeps what it was shown."""

    def pick(self, logits: Logits) -> int:
        self.logits = logits.copy()
        return int(logits.argmax())


def logits_of(engine: Engine) -> Logits:
    keep = Keep()
    ids = ChatEncoder(engine).encode(ASKED)
    engine.decode([BatchChunk(0, 0, tuple(ids), outputs=1)])
    engine.sample(0, keep)
    return keep.logits


@pytest.mark.parametrize(("name", "quantisation"), KINDS)
def test_a_header_reads_as_the_catalogues_shape_and_llama_cpp_computes_with_it(
    tmp_path: Path, name: str, quantisation: Quantisation
):
    entry = small(name)
    path = tmp_path / "shape.gguf"
    write_shape_file(entry, quantisation, path)
    header = read_header(path)
    check_model(header)
    assert replace(shape_of(header), name=entry.name) == entry.shape(quantisation)
    engine = load(path)
    logits = logits_of(engine)
    engine.close()
    assert logits.shape == (entry.vocabulary,)
    assert 0.1 < logits.std() < 3  # which no infinity or NaN passes


def test_the_real_special_tokens_are_there(tmp_path: Path):
    path = tmp_path / "shape.gguf"
    write_shape_file(small("phi-3-mini-4k-instruct"), "q4_0", path)
    engine = load(path)
    ids = ChatEncoder(engine).encode(ASKED)
    engine.close()
    assert ids[:2] == [1, 32010]
    assert 32007 in ids
    assert ids[-1] == 32001


@pytest.mark.parametrize(
    "entry", [e for e in read_catalogue().models if e.unloadable is None], ids=lambda e: e.name
)
def test_every_entrys_header_takes_what_the_catalogue_says(entry: Entry):
    assert len(_header(entry, entry.shape("q4_k_m"))) == entry.header_bytes


def test_the_name_tells_it_from_the_real_model(tmp_path: Path):
    path = tmp_path / "shape.gguf"
    write_shape_file(small("phi-3-mini-4k-instruct"), "q4_0", path)
    assert read_header(path).name == "Phi-3-mini-4k-instruct (shape, random weights)"


@pytest.mark.parametrize(
    ("name", "quantisation", "kinds"),
    [
        ("phi-3.5-mini-instruct", "q4_0", {"F32", "Q4_0", "Q4_1", "Q6_K"}),
        ("phi-3-mini-4k-instruct", "q4_k_m", {"F32", "Q4_K", "Q5_K", "Q6_K"}),
        ("phi-3-mini-4k-instruct", "q8_0", {"F32", "Q8_0"}),
    ],
)
def test_weights_are_centred_and_of_a_sane_size(
    tmp_path: Path, name: str, quantisation: Quantisation, kinds: set[str]
):
    path = tmp_path / "shape.gguf"
    write_shape_file(small(name), quantisation, path)
    tensors = read_header(path).tensors
    assert {tensor.type.name for tensor in tensors} == kinds
    for tensor in tensors:
        if tensor.type.name == "F32":
            continue
        raw = np.fromfile(path, np.uint8, tensor.size_bytes, offset=tensor.offset_bytes)
        weights = dequantize(raw, GGMLQuantizationType(tensor.type.id))
        assert abs(weights.mean()) < 0.002
        assert weights.std() == pytest.approx(0.021, rel=0.1)


def test_the_same_call_writes_the_same_bytes_and_tells_of_each(tmp_path: Path):
    heard: list[int] = []
    entry = small("phi-3-mini-4k-instruct")
    for name in ("one", "two"):
        write_shape_file(entry, "q4_0", tmp_path / name, progress=heard.append)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sum(heard) == 2 * entry.shape("q4_0").file_bytes


def test_a_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 1000))
    entry = read_catalogue().find("phi-4")
    with pytest.raises(EdgedError, match=r"needs 9,053,114,816 bytes, but 1,000 are free"):
        write_shape_file(entry, "q4_k_m", tmp_path / "shape.gguf")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_file_leaves_nothing(tmp_path: Path):
    def interrupt(_bytes: int) -> None:
        assert [found.suffix for found in tmp_path.iterdir()] == [".partial"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shape_file(
            small("phi-3-mini-4k-instruct"), "q4_0", tmp_path / "s.gguf", progress=interrupt
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    target = tmp_path / "nowhere" / "shape.gguf"
    with pytest.raises(EdgedError, match=r"nowhere/shape\.gguf: cannot be written: No such file"):
        write_shape_file(small("phi-3-mini-4k-instruct"), "q4_0", target)


def test_the_command_refuses_a_quantisation_that_it_does_not_know(tmp_path: Path):
    target = tmp_path / "shape.gguf"
    answered = CliRunner().invoke(
        cli, ["models", "shape", "phi-4", "--quant", "q3_k_m", "-o", str(target)]
    )
    assert answered.exit_code == 2
    assert "'q4_0', 'q4_k_m', 'q8_0'" in answered.output


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("name", "quantisation"),
    [("phi-3-mini-4k-instruct", "q4_0"), ("phi-4-mini-instruct", "q4_k_m")],
)
def test_the_command_writes_a_full_size_file_that_answers(
    tmp_path: Path, name: str, quantisation: Quantisation
):
    path = tmp_path / "shape.gguf"
    answered = CliRunner().invoke(
        cli, ["models", "shape", name, "--quant", quantisation, "-o", str(path)]
    )
    assert answered.exit_code == 0
    assert path.stat().st_size == read_catalogue().find(name).shape(quantisation).file_bytes
    engine = load(path)
    assert 0.1 < logits_of(engine).std() < 3
    engine.close()
    path.unlink()
