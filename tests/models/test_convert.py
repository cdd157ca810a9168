"""The conversion to the llama layout loses nothing, and never leaves half a file behind."""

import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from gguf_files import PIECES, Shape, vocabulary, write_phi3

from edged.errors import EngineUnavailable, ModelFileError
from edged.models import convert
from edged.models.convert import convert_phi3_to_llama, converted_path, ensure_converted
from edged.models.gguf import check_model, read_header

F32, Q4_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q4_0
SHAPES = {
    "plain": Shape(),
    "grouped": Shape(hidden=256, layers=3, heads=8, kv_heads=2, feed_forward=512),
    "other rope": Shape(hidden=128, heads=2, kv_heads=1, rope_base=250000.0),
}
TOKENS = [1, *(270 - 3 * i for i in range(40))]


def weights(path: Path) -> dict[str, np.ndarray]:
    """Every tensor as floats, rows first."""
    reader = gguf.GGUFReader(path)
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


def paired_as_phi3(rows: np.ndarray, head: int) -> np.ndarray:
    """Rows 0, d/2, 1, d/2 + 1, … of each head back in the order 0, 1, 2, …"""
    heads = rows.reshape(-1, head, rows.shape[1])
    return np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1).reshape(rows.shape)


@pytest.mark.parametrize("which", SHAPES)
def test_every_weight_survives(which: str, tmp_path: Path):
    shape = SHAPES[which]
    source = write_phi3(tmp_path / "phi3.gguf", shape)
    convert_phi3_to_llama(source, tmp_path / "llama.gguf")
    before, after = weights(source), weights(tmp_path / "llama.gguf")
    for layer in range(shape.layers):
        q, k, v, gate, up = (
            after.pop(f"blk.{layer}.{part}.weight")
            for part in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")
        )
        fused = np.concatenate([paired_as_phi3(q, shape.head), paired_as_phi3(k, shape.head), v])
        np.testing.assert_array_equal(before.pop(f"blk.{layer}.attn_qkv.weight"), fused)
        stacked = np.concatenate([gate, up])
        np.testing.assert_array_equal(before.pop(f"blk.{layer}.ffn_up.weight"), stacked)
    assert before.keys() == after.keys()
    for name, expected in before.items():
        np.testing.assert_array_equal(after[name], expected)


def test_the_header_says_llama_and_keeps_the_rest(tmp_path: Path):
    source = write_phi3(
        tmp_path / "phi3.gguf",
        texts={"tokenizer.chat_template": "{{ käse }}"},
        numbers={"phi3.rope.scaling.original_context_length": 256},
        alignment=64,
    )
    convert_phi3_to_llama(source, tmp_path / "llama.gguf")
    arrays = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
    before = read_header(source, arrays=arrays)
    after = read_header(tmp_path / "llama.gguf", arrays=arrays)
    check_model(after)
    expected = {
        key.replace("phi3.", "llama.", 1): value
        for key, value in before.metadata.items()
        if "sliding_window" not in key and "rope.scaling" not in key
    }
    assert dict(after.metadata) == expected | {"general.architecture": "llama"}
    assert after.alignment == 64
    assert after.file_bytes % 64 == 0


def test_a_tied_output_gets_its_own_tensor(tmp_path: Path):
    source = write_phi3(tmp_path / "phi3.gguf", tied=True)
    convert_phi3_to_llama(source, tmp_path / "llama.gguf")
    after = weights(tmp_path / "llama.gguf")
    np.testing.assert_array_equal(after["output.weight"], after["token_embd.weight"])


def test_the_reference_reader_reads_it(tmp_path: Path):
    convert_phi3_to_llama(write_phi3(tmp_path / "phi3.gguf"), tmp_path / "llama.gguf")
    reader = gguf.GGUFReader(tmp_path / "llama.gguf")
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert tokens == [token.text for token in vocabulary(PIECES)]


FACTORS = {f"rope_factors_{which}.weight": np.ones(16, np.float32) for which in ("long", "short")}


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"extra": FACTORS}, r"rope scaling \(longrope\)"),
        ({"texts": {"phi3.rope.scaling.type": "longrope"}}, r"rope scaling \(longrope\)"),
        ({"texts": {"phi3.rope.scaling.type": "yarn"}}, r"rope scaling \(yarn\)"),
        ({"numbers": {"phi3.rope.dimension_count": 16}}, "only 16 of 32"),
        ({"extra": {"blk.0.attn_qkv.bias": np.zeros(192, np.float32)}}, "attn_qkv.bias"),
        ({"quantisation": gguf.GGMLQuantizationType.BF16}, "is BF16"),
    ],
)
def test_what_the_layout_cannot_express_is_refused(
    keywords: dict[str, object], reason: str, tmp_path: Path
):
    source = write_phi3(tmp_path / "phi3.gguf", **keywords)
    check_model(read_header(source))
    with pytest.raises(EngineUnavailable, match=f"{reason}.*llama_cpp"):
        convert_phi3_to_llama(source, tmp_path / "llama.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["phi3.gguf"]


def test_a_llama_model_is_refused(tmp_path: Path):
    convert_phi3_to_llama(write_phi3(tmp_path / "phi3.gguf"), tmp_path / "llama.gguf")
    with pytest.raises(EngineUnavailable, match="is a llama model"):
        convert_phi3_to_llama(tmp_path / "llama.gguf", tmp_path / "again.gguf")


def test_a_broken_model_is_refused(tmp_path: Path):
    source = write_phi3(tmp_path / "phi3.gguf")
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="truncated"):
        convert_phi3_to_llama(source, tmp_path / "llama.gguf")


def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_phi3(tmp_path / "phi3.gguf")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EngineUnavailable, match=r"needs \d{5} bytes, but 1000 are available"):
        convert_phi3_to_llama(source, tmp_path / "llama.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["phi3.gguf"]


def test_the_space_asked_for_is_the_space_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(convert, "_check_space", lambda _, needed: asked.append(needed))
    convert_phi3_to_llama(write_phi3(tmp_path / "phi3.gguf"), tmp_path / "llama.gguf")
    assert asked == [(tmp_path / "llama.gguf").stat().st_size]


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_phi3(tmp_path / "phi3.gguf")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "_write", full)
    with pytest.raises(EngineUnavailable, match="No space left"):
        convert_phi3_to_llama(source, tmp_path / "llama.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["phi3.gguf"]


def test_memory_stays_small_whatever_the_size(tmp_path: Path):
    source = tmp_path / "phi3.gguf"
    shape = Shape(hidden=1024, layers=4, heads=16, kv_heads=16, feed_forward=8192)
    write_phi3(source, shape)
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from edged.models.convert import convert_phi3_to_llama\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "convert_phi3_to_llama(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    target = tmp_path / "llama.gguf"
    command = [sys.executable, "-c", script, str(source), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=with_edged())
    assert target.stat().st_size > 60e6
    assert int(done.stdout) < 30e3


# The cache


def test_a_conversion_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_phi3(tmp_path / "phi3.gguf")
    first = ensure_converted(source, tmp_path / "state")
    assert first == converted_path(source, tmp_path / "state")
    assert first.parent == tmp_path / "state" / "converted"
    monkeypatch.setattr(convert, "convert_phi3_to_llama", pytest.fail)
    assert ensure_converted(source, tmp_path / "state") == first


def test_another_source_gets_another_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_phi3(tmp_path / "phi3.gguf")
    paths = {converted_path(source, tmp_path)}
    os.utime(source, ns=(1, 1))
    paths.add(converted_path(source, tmp_path))
    with source.open("ab") as file:
        file.write(b"x")
    os.utime(source, ns=(1, 1))
    paths.add(converted_path(source, tmp_path))
    monkeypatch.setattr(convert, "CONVERTER_VERSION", 99)
    paths.add(converted_path(source, tmp_path))
    assert len(paths) == 4
    with pytest.raises(ModelFileError, match="No such file"):
        converted_path(tmp_path / "absent.gguf", tmp_path)


def test_a_damaged_conversion_is_made_again(tmp_path: Path):
    source = write_phi3(tmp_path / "phi3.gguf")
    target = ensure_converted(source, tmp_path)
    whole = target.read_bytes()
    target.write_bytes(whole[:-1000])
    assert ensure_converted(source, tmp_path).read_bytes() == whole


def test_what_a_killed_conversion_left_is_removed(tmp_path: Path):
    source = write_phi3(tmp_path / "phi3.gguf")
    left = tmp_path / "converted" / ".phi3-0123.gguf.abc.partial"
    left.parent.mkdir()
    left.write_bytes(b"half")
    target = ensure_converted(source, tmp_path)
    assert sorted(path.name for path in left.parent.iterdir()) == [".lock", target.name]


def test_two_processes_at_once_get_one_file(tmp_path: Path):
    source = write_phi3(tmp_path / "phi3.gguf")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        targets = pool.starmap(ensure_converted, [(source, tmp_path)] * 4)
    assert set(targets) == {converted_path(source, tmp_path)}
    check_model(read_header(targets[0]))


def test_a_state_directory_that_is_none_is_a_clear_error(tmp_path: Path):
    source = write_phi3(tmp_path / "phi3.gguf")
    (tmp_path / "state").write_text("a file")
    with pytest.raises(EngineUnavailable, match="cannot be kept there"):
        ensure_converted(source, tmp_path / "state")


# The engines agree. In processes of their own: native code may end them.

LLAMA_CPP = """
import ctypes, json, sys
import llama_cpp
parameters = llama_cpp.llama_model_default_params()
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), parameters)
parameters = llama_cpp.llama_context_default_params()
parameters.n_ctx, parameters.n_threads, parameters.n_threads_batch = 256, 1, 1
context = llama_cpp.llama_init_from_model(model, parameters)
tokens = json.loads(sys.argv[2])
ids = (ctypes.c_int32 * len(tokens))(*tokens)
assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(tokens))) == 0
count = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
print(json.dumps(llama_cpp.llama_get_logits(context)[:count]))
"""
CTRANSFORMERS = """
import json, sys
from ctransformers.llm import LLM, Config
tokens = json.loads(sys.argv[2])
model = LLM(sys.argv[1], config=Config(context_length=256))
model.eval(tokens, batch_size=len(tokens), threads=1)
print(json.dumps(list(model.logits)))
"""


def with_edged() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(convert.__file__).parents[2])}


def logits(script: str, model: Path) -> np.ndarray:
    command = [sys.executable, "-c", script, str(model), json.dumps(TOKENS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"needs {package}")


@needs("llama_cpp")
@pytest.mark.parametrize("quantisation", [F32, Q4_0])
@pytest.mark.parametrize("which", SHAPES)
def test_engines_agree_on_the_source_and_the_conversion(
    which: str, quantisation: gguf.GGMLQuantizationType, tmp_path: Path
):
    source = write_phi3(tmp_path / "phi3.gguf", SHAPES[which], quantisation=quantisation)
    target = tmp_path / "llama.gguf"
    convert_phi3_to_llama(source, target)
    expected = logits(LLAMA_CPP, source)
    found = [logits(LLAMA_CPP, target)]
    if importlib.util.find_spec("ctransformers"):
        found.append(logits(CTRANSFORMERS, target))
    # Activations are rounded to 8 bits where weights are quantised, in an order that the
    # layout changes, so only unquantised weights show how exact the conversion is.
    tolerance = (0.02 if quantisation is F32 else 0.3) * expected.std()
    for other in found:
        assert other.argmax() == expected.argmax()
        np.testing.assert_allclose(other, expected, atol=tolerance)
