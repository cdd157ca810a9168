"""The arithmetic of sizing, held against what llama.cpp says it allocates."""

import math
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from gguf_files import PIECES, Shape, vocabulary, write_phi3

from edged.hardware.machine import read_machine
from edged.models.buffers import compute_bytes, output_bytes
from edged.models.bundled import BUNDLED_MODEL
from edged.models.catalogue import Entry, read_catalogue
from edged.models.configuration import Configuration, KvType, LoadMode
from edged.models.gguf import read_header
from edged.models.quantisation import Quantisation
from edged.models.shape import ModelShape, shape_of
from edged.models.shape_file import write_shape_file
from edged.models.sizing import (
    OVERHEAD_CUDA_GPU_BYTES,
    OVERHEAD_CUDA_HOST_BYTES,
    Parts,
    decode_tokens_per_s,
    is_repacked,
    kv_token_bytes,
    kv_type_fits,
    memory,
    read_bytes_a_token,
    rope,
)

pytest.importorskip("llama_cpp")

from engine_buffers import Buffers, dry_run, real_load

MIB = 2**20
CLOSE = 0.15 * MIB
"""What llama.cpp's inputs (ids, positions, a rotation's matrix) take beside what is counted."""
# Cells, slots, tokens of a ubatch, the cache's type, flash attention.
WAYS: list[tuple[int, int, int, KvType, bool]] = [
    (256, 1, 64, "f16", True),
    (1024, 4, 512, "f16", True),
    (4096, 4, 64, "f16", True),
    (1000, 2, 64, "q8_0", True),
    (1024, 1, 512, "q8_0", True),
    (2048, 4, 512, "q4_0", True),
    (512, 1, 64, "f16", False),
    (1024, 4, 64, "f16", False),
    (900, 3, 128, "f16", False),
    (2048, 1, 512, "f16", False),
    (4096, 4, 512, "f16", False),
    (16384, 4, 64, "f16", False),
]
# Few and narrow layers of each kind of model: what is asked of an entry beside the figures here
# is that its own kind of attention, output and experts stay.
KINDS: dict[str, dict[str, int]] = {
    "phi-3-mini-4k-instruct": {"heads": 8, "kv_heads": 8, "hidden": 768, "feed_forward": 2048},
    "phi-3.5-mini-instruct": {"heads": 8, "kv_heads": 8, "hidden": 768, "feed_forward": 256},
    "phi-4-mini-instruct": {"heads": 6, "kv_heads": 2, "hidden": 768, "feed_forward": 2048},
    "phi-4": {"heads": 40, "kv_heads": 10, "head_size": 32, "rotated": 32, "hidden": 1280,
              "feed_forward": 4352, "vocabulary": 8192, "merges": 4096},
    "phi-3.5-moe-instruct": {"heads": 8, "kv_heads": 2, "hidden": 1024, "feed_forward": 1536,
                             "experts": 4},
}  # fmt: skip
HERE = read_machine().isa


def narrow(name: str) -> Entry:
    entry = read_catalogue().find(name)
    return Entry.model_validate({**entry.model_dump(), "layers": 3, **KINDS[name]})


def full(name: str, quantisation: Quantisation = "q4_k_m") -> ModelShape:
    return read_catalogue().find(name).shape(quantisation)


def way(
    ctx: int = 4096,
    slots: int = 1,
    ubatch_tokens: int = 64,
    kv_type: KvType = "f16",
    *,
    cells: int | None = None,
    flash_attention: bool = True,
    load_mode: LoadMode = "none",
    gpu_layers: int = 0,
    engine: str = "llama_cpp",
) -> Configuration:
    return Configuration(
        engine=engine,
        ctx=ctx,
        slots=slots,
        cells=cells or ctx,
        kv_type=kv_type,
        flash_attention=flash_attention,
        load_mode=load_mode,
        ubatch_tokens=ubatch_tokens,
        gpu_layers=gpu_layers,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> "Files":
    return Files(tmp_path_factory.mktemp("sizing"))


class Files:
    """A narrow file of a catalogue entry, written when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.of = cache(self._write)
        self._folder = folder

    def _write(self, name: str, quantisation: Quantisation) -> tuple[Path, ModelShape]:
        path = self._folder / f"{name}-{quantisation}.gguf"
        write_shape_file(narrow(name), quantisation, path)
        return path, shape_of(read_header(path))


def agree(shape: ModelShape, how: Configuration, real: Buffers) -> None:
    assert compute_bytes(shape, how) == pytest.approx(real.compute, abs=CLOSE, rel=0.01)
    kv = memory(shape, how, HERE).host.kv_bytes
    assert kv == pytest.approx(real.kv, abs=0.011 * MIB)
    # It has room for one output a slot, until a batch asks for more.
    at_first = output_bytes(shape, how) * how.slots / how.outputs_max
    assert at_first == pytest.approx(real.output, abs=0.011 * MIB)


@pytest.mark.parametrize(("cells", "slots", "ubatch_tokens", "kv_type", "flash_attention"), WAYS)
@pytest.mark.parametrize("name", KINDS)
def test_compute_cache_and_output_are_what_the_engines_dry_run_says(
    files: Files,
    name: str,
    cells: int,
    slots: int,
    ubatch_tokens: int,
    kv_type: KvType,
    flash_attention: bool,
):
    path, shape = files.of(name, "q4_0")
    how = way(cells, slots, ubatch_tokens, kv_type, flash_attention=flash_attention)

    agree(shape, how, dry_run(path, how))


@pytest.mark.parametrize(
    "shape",
    [
        Shape(hidden=512, layers=3, heads=8, kv_heads=8, feed_forward=1024, context=4096),
        Shape(hidden=512, layers=3, heads=4, kv_heads=2, feed_forward=2048, context=4096),
        Shape(hidden=768, layers=3, heads=8, kv_heads=8, feed_forward=256, context=4096),
    ],
    ids=["square", "grouped", "attention is widest"],
)
def test_a_strangers_shape_agrees_too(tmp_path: Path, shape: Shape):
    path = write_phi3(tmp_path / "model.gguf", shape)
    for cells, slots, ubatch_tokens in [(1024, 1, 512), (900, 3, 128)]:
        for flash_attention in (True, False):
            how = way(cells, slots, ubatch_tokens, flash_attention=flash_attention)

            agree(shape_of(read_header(path)), how, dry_run(path, how))


def test_the_bundled_model_agrees():
    for how in (way(512, 1, 64), way(512, 4, 512), way(512, 4, 64, flash_attention=False)):
        agree(shape_of(read_header(BUNDLED_MODEL)), how, dry_run(BUNDLED_MODEL, how))


@pytest.mark.parametrize("load_mode", ["none", "none-plain"])
@pytest.mark.parametrize(
    ("name", "quantisation"),
    [*product(KINDS, ["q4_0"]), ("phi-3-mini-4k-instruct", "q4_k_m"), ("phi-4", "q8_0"),
     ("phi-4-mini-instruct", "q8_0")],
)  # fmt: skip
def test_weights_are_what_the_engine_holds_of_them(
    files: Files, name: str, quantisation: Quantisation, load_mode: LoadMode
):
    path, shape = files.of(name, quantisation)
    how = way(256, load_mode=load_mode)

    real = real_load(path, how).weights

    predicted = memory(shape, how, HERE).host.weights_bytes
    assert predicted == pytest.approx(sum(real.values()), abs=0.03 * MIB)
    assert ("CPU_REPACK" in real) is (
        load_mode == "none" and any(is_repacked(each, HERE) for each in shape.tensors)
    )


@pytest.mark.parametrize("name", ["phi-3-mini-4k-instruct", "phi-4-mini-instruct", "phi-4"])
def test_a_mapped_file_is_repacked_beside_its_pages(files: Files, name: str):
    path, shape = files.of(name, "q4_0")
    how = way(256, load_mode="mmap")

    real = real_load(path, how).weights
    held = memory(shape, how, HERE)

    repacked = held.host.weights_bytes - held.mapped_bytes
    assert repacked == pytest.approx(real["CPU_REPACK"], abs=0.03 * MIB)
    # What is mapped runs from the first to the last of its tensors; what of that is repacked
    # is not read any more.
    assert held.mapped_bytes + held.spare_file_bytes == shape.weights_bytes


def test_a_tied_output_is_held_twice_where_it_is_repacked(tmp_path: Path):
    tokens = vocabulary((*PIECES, "x", "y", "z"))
    assert len(tokens) % 8 == 0  # rows are interleaved by 4 or 8
    shape = Shape(hidden=512, layers=2, heads=4, kv_heads=4, feed_forward=512)
    copies = {}
    for quantisation in (GGMLQuantizationType.Q4_0, GGMLQuantizationType.F16):
        path = write_phi3(
            tmp_path / f"{quantisation.name}.gguf",
            shape,
            tokens=tokens,
            tied=True,
            quantisation=quantisation,
        )
        tied = shape_of(read_header(path))
        how = way(256)
        real = sum(real_load(path, how).weights.values())
        predicted = memory(tied, how, HERE).host.weights_bytes
        assert predicted == pytest.approx(real, abs=0.03 * MIB)
        copies[quantisation.name] = predicted > tied.weights_bytes * 1.01

    assert copies == {"Q4_0": True, "F16": False}


@pytest.mark.parametrize(("kv_type", "mib"), [("f16", 1536), ("q8_0", 816), ("q4_0", 432)])
def test_the_cache_of_phi_3_mini_at_4096_tokens(kv_type: KvType, mib: int):
    shape = full("phi-3-mini-4k-instruct")

    assert memory(shape, way(kv_type=kv_type), ()).host.kv_bytes == mib * MIB
    assert kv_token_bytes(shape, kv_type) * 4096 == mib * MIB


def test_grouped_keys_and_values_take_their_share():
    assert kv_token_bytes(full("phi-4-mini-instruct"), "f16") == 128 * 1024
    assert kv_token_bytes(full("phi-4"), "f16") == 200 * 1024


def test_the_cache_is_what_all_slots_share_rounded_up():
    shape = full("phi-3-mini-4k-instruct")
    shared = memory(shape, way(300, 3, cells=600), ()).host.kv_bytes

    assert shared == 768 * kv_token_bytes(shape, "f16")


def test_three_more_slots_cost_their_outputs_and_no_more():
    shape = full("phi-3-mini-4k-instruct")
    one, four = (memory(shape, way(4096, slots), ()).host for slots in (1, 4))

    # Once in the graph, where it is wide enough anyway, and once where they are handed out.
    assert four.compute_bytes - one.compute_bytes == 3 * 4 * shape.vocabulary
    assert four.total_bytes - one.total_bytes < 0.5 * MIB


def test_a_head_must_be_whole_blocks_of_the_caches_type(tmp_path: Path):
    path = write_phi3(tmp_path / "model.gguf", Shape(hidden=96, heads=2, kv_heads=2))
    odd = shape_of(read_header(path))

    assert [kv_type_fits(odd, each) for each in ("f16", "q8_0", "q4_0")] == [True, False, False]
    assert kv_type_fits(full("phi-3-mini-4k-instruct"), "q4_0")


@pytest.mark.parametrize(
    ("name", "ctx", "factors"),
    [
        ("phi-3-mini-4k-instruct", 4096, "plain"),
        ("phi-4-mini-instruct", 2048, "short"),
        ("phi-4-mini-instruct", 4096, "short"),
        ("phi-4-mini-instruct", 4097, "long"),
        ("phi-4-mini-instruct", 131072, "long"),
        ("phi-4", 16384, "plain"),
    ],
)
def test_rope_factors_follow_the_context_of_a_prompt(name: str, ctx: int, factors: str):
    assert rope(full(name), ctx) == factors


def test_a_dense_models_token_reads_all_but_the_embedding():
    shape = full("phi-3-mini-4k-instruct")
    embedding = next(each for each in shape.tensors if each.name == "token_embd.weight")

    expected = shape.weights_bytes - embedding.size_bytes + embedding.row_bytes
    assert read_bytes_a_token(shape) == expected


def test_a_tied_embedding_is_read_whole_as_the_output():
    shape = full("phi-4-mini-instruct")

    assert read_bytes_a_token(shape) == shape.weights_bytes


def test_of_sixteen_experts_a_token_reads_two():
    shape = full("phi-3.5-moe-instruct")
    experts = sum(each.size_bytes for each in shape.tensors if "_exps." in each.name)

    without = read_bytes_a_token(shape) - experts * 2 // 16
    assert 0 < without < 0.05 * shape.weights_bytes
    assert read_bytes_a_token(shape) < 0.17 * shape.weights_bytes


def test_speed_is_bandwidth_over_what_a_token_reads():
    """Expected of Phi-3-mini Q4_K_M: 4.1 to 4.8 tokens/s on a Raspberry Pi 5 at 10.3 GB/s."""
    shape = full("phi-3-mini-4k-instruct")
    short = decode_tokens_per_s(shape, "f16", filled_tokens=256, bytes_per_s=10.3e9)
    long = decode_tokens_per_s(shape, "f16", filled_tokens=4096, bytes_per_s=10.3e9)

    assert 4.1 < short < 4.8
    assert long == pytest.approx(10.3e9 / (read_bytes_a_token(shape) + 1536 * MIB), rel=0.01)


@pytest.mark.parametrize("name", ["phi-3-mini-4k-instruct", "phi-4-mini-instruct", "phi-4"])
def test_layers_on_the_gpu_are_split_without_loss(name: str):
    shape = full(name)
    whole = memory(shape, way(), ()).host
    for gpu_layers in range(1, shape.layers + 2):
        split = memory(shape, way(gpu_layers=gpu_layers), ())

        assert split.both.kv_bytes == whole.kv_bytes
        tied = next(each.size_bytes for each in shape.tensors if each.name == "token_embd.weight")
        copied = tied if shape.is_tied else 0
        assert split.both.weights_bytes == pytest.approx(whole.weights_bytes + copied, rel=1e-3)
        assert split.gpu.overhead_bytes == OVERHEAD_CUDA_GPU_BYTES
        assert split.host.overhead_bytes - whole.overhead_bytes == OVERHEAD_CUDA_HOST_BYTES
    assert memory(shape, way(gpu_layers=shape.layers + 1), ()).host.kv_bytes == 0


def test_ctransformers_maps_the_file_and_keeps_one_sequence_in_f16():
    shape = full("phi-3-mini-4k-instruct")
    held = memory(shape, way(engine="ctransformers"), HERE)

    assert held.mapped_bytes == held.host.weights_bytes == shape.weights_bytes
    assert held.host.kv_bytes == 1536 * MIB
    assert held.gpu == Parts()


def test_parts_add_up():
    parts = Parts(1, 20, 300, 4000)

    assert parts.total_bytes == 4321
    assert (parts + parts).total_bytes == 8642
    assert math.isclose(Parts().total_bytes, 0)
