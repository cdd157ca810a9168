"""From settings and store to what is to be loaded."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import Shape, write_phi3

from edged.engine.frames import Load
from edged.engine.plan_frames import Answer, Question, decode_answer, decode_question, encode
from edged.engine.planner import answer
from edged.engine.planning import candidates_of, make_plan, nominal
from edged.errors import ConfigError, ModelFileError
from edged.hardware.profile import read_profile
from edged.models.bundled import BUNDLED_MODEL
from edged.models.fallback import Shortfall
from edged.models.plan import Machine
from edged.models.pull import pull
from edged.models.store import Store
from edged.models.targets import parse_target
from edged.settings import Settings

MIB = 2**20
SMALL = Shape(hidden=256, layers=2, heads=4, kv_heads=4, feed_forward=512, context=8192)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("EDGED_")]:
        monkeypatch.delenv(name)
    return Settings(state_dir=tmp_path / "state", model={"store": tmp_path / "store"})


def stored(settings: Settings, tmp_path: Path, name: str, shape: Shape = SMALL) -> None:
    source = write_phi3(tmp_path / f"{name}.gguf", shape)
    pull(parse_target(f"file:{source}"), Store(settings.model.store), lambda *_: None)


def machine(memory_mib: int = 4096) -> Machine:
    return replace(nominal(read_profile("pi5-8gb")), memory_bytes=memory_mib * MIB)


def test_an_empty_store_leaves_the_bundled_model(settings: Settings) -> None:
    (only,) = candidates_of(settings, None, {})

    assert only.path == BUNDLED_MODEL


def test_the_bundled_model_is_no_fallback_for_a_store_that_is_damaged(
    settings: Settings, tmp_path: Path
) -> None:
    stored(settings, tmp_path, "phi")
    (settings.model.store / "phi.gguf").write_bytes(b"GGUF")

    with pytest.raises(ModelFileError, match=r"no usable model; phi: is damaged: it has 4 bytes"):
        candidates_of(settings, None, {})


def test_what_was_chosen_comes_before_what_is_better(settings: Settings, tmp_path: Path) -> None:
    stored(settings, tmp_path, "small")
    stored(settings, tmp_path, "large", replace(SMALL, layers=6))
    best = make_plan(settings, machine(), None, now=machine())
    chosen = make_plan(settings, machine(), "small", now=machine())

    assert not isinstance(best, Shortfall)
    assert not isinstance(chosen, Shortfall)
    assert best.load.model_name == "large"
    assert (chosen.load.model_name, chosen.steps) == ("small", ())


def test_a_chosen_model_that_is_damaged_gives_way_and_that_is_said(
    settings: Settings, tmp_path: Path
) -> None:
    stored(settings, tmp_path, "small")
    stored(settings, tmp_path, "large", replace(SMALL, layers=6))
    planned = make_plan(settings, machine(), "large", {"large": "its SHA-256"}, machine())

    assert not isinstance(planned, Shortfall)
    assert planned.load.model_name == "small"
    assert planned.steps == ("small Q4_0 instead of large, which is not usable",)


def test_what_the_operator_set_is_what_is_loaded(settings: Settings, tmp_path: Path) -> None:
    stored(settings, tmp_path, "phi")
    engine = settings.engine.model_copy(
        update={"ctx": 700, "slots": 3, "kv_type": "q8_0", "load_mode": "mmap", "threads": 7}
    )
    planned = make_plan(
        settings.model_copy(update={"engine": engine}), machine(), None, now=machine()
    )

    assert not isinstance(planned, Shortfall)
    load = planned.load
    assert (load.ctx, load.slots, load.cells, load.kv_type) == (700, 3, 2100, "q8_0")
    assert load.flash_attention
    assert (load.load_mode, load.threads, load.threads_prefill) == ("mmap", 7, 7)


def test_the_operators_own_prompt_is_read_by_the_engine_before_anybody_asks(
    settings: Settings,
) -> None:
    chat = settings.chat.model_copy(update={"system_prompt": "Be brief."})
    said = answer(
        decode_question(encode(question(settings.model_copy(update={"chat": chat}), 1024)))
    )

    assert said.load is not None
    assert said.load.system_prompt == "Be brief."


def test_without_a_gpu_an_f16_cache_on_x86_does_without_flash_attention(
    settings: Settings,
) -> None:
    x86 = replace(machine(), isa=("avx2",))
    planned = make_plan(settings, x86, None, now=x86)

    assert not isinstance(planned, Shortfall)
    assert (planned.load.kv_type, planned.load.flash_attention) == ("f16", False)


def test_a_context_beyond_the_models_is_the_models(settings: Settings) -> None:
    engine = settings.engine.model_copy(update={"ctx": 100_000})
    planned = make_plan(
        settings.model_copy(update={"engine": engine}), machine(), None, now=machine()
    )

    assert not isinstance(planned, Shortfall)
    assert planned.load.ctx == 1024


def test_a_profile_that_leaves_the_memory_open_cannot_be_planned_for() -> None:
    with pytest.raises(ConfigError, match="generic-x86_64 leaves memory or bandwidth"):
        nominal(read_profile("generic-x86_64"))


# The planner's process


def question(settings: Settings, available_mib: int, *, verify: bool = False) -> Question:
    return Question(
        settings=settings.model_dump(include={"state_dir", "profile", "model", "engine", "chat"}),
        chosen=None,
        damaged={},
        may_be_bundled=False,
        available_bytes=available_mib * MIB,
        limited_by="MemAvailable",
        total_bytes=8192 * MIB,
        verify=verify,
    )


def test_a_question_is_answered_with_what_to_load(settings: Settings) -> None:
    said = answer(decode_question(encode(question(settings, 1024))))

    assert said.load is not None
    assert said.load.model_path == str(BUNDLED_MODEL)
    assert said.profile
    assert said.needed_bytes
    assert decode_answer(encode(said)) == said


def test_missing_memory_is_answered_with_both_numbers(settings: Settings) -> None:
    said = answer(decode_question(encode(question(settings, 10))))

    assert (said.load, said.kind, said.available_bytes) == (None, "out_of_memory", 10 * MIB)
    assert said.needed_bytes is not None
    assert said.needed_bytes > 10 * MIB
    assert decode_answer(encode(said)) == said


def test_a_model_that_cannot_be_read_is_an_answer_too(settings: Settings, tmp_path: Path) -> None:
    model = settings.model.model_copy(update={"path": tmp_path / "none.gguf"})
    said = answer(
        decode_question(encode(question(settings.model_copy(update={"model": model}), 9)))
    )

    assert (said.load, said.kind) == (None, None)
    assert "none.gguf" in (said.error or "")


def test_weights_that_changed_are_found_where_they_are_to_be_looked_at(
    settings: Settings, tmp_path: Path
) -> None:
    stored(settings, tmp_path, "small")
    stored(settings, tmp_path, "large", replace(SMALL, layers=6))
    with (settings.model.store / "large.gguf").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\1")
    careless = answer(decode_question(encode(question(settings, 2048))))
    careful = answer(decode_question(encode(question(settings, 2048, verify=True))))

    assert careless.load is not None
    assert careless.load.model_name == "large"
    assert careful.load is not None
    assert careful.load.model_name == "small"
    assert "is damaged" in careful.damaged["large"]


def test_a_path_that_is_no_utf8_crosses_both_ways(settings: Settings) -> None:
    path = os.fsdecode(b"/srv/\xff.gguf")
    model = settings.model.model_copy(update={"path": Path(path)})
    asked = decode_question(encode(question(settings.model_copy(update={"model": model}), 9)))
    said = decode_answer(encode(Answer(load=Load("auto", path, "", 1, 1, 1, 0))))

    assert asked.settings["model"]["path"] == path
    assert said.load is not None
    assert said.load.model_path == path
