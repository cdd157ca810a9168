"""llama.cpp behind our protocol: its tokenizer, its cache, and answers of the bundled model."""

import ctypes
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edged.engine.chat import ChatEncoder
from edged.engine.costs import StepCosts
from edged.engine.frames import Finished, Load, Submit, Up
from edged.engine.protocol import BatchChunk, Logits, Picker
from edged.engine.registry import open_engine
from edged.engine.run import Run
from edged.engine.step_loop import StepLoop
from edged.errors import EngineFailed
from edged.messages import ChatMessage
from edged.models.bundled import BUNDLED_MODEL
from edged.models.catalogue import Entry, read_catalogue
from edged.models.gguf import read_header
from edged.models.shape_file import write_shape_file
from tests.engine.loop_bench import submit

lib = pytest.importorskip("llama_cpp")

from edged.engine.llama_cpp import (  # noqa: E402 (needs the library)
    LlamaCppEngine,
    LlamaVocabulary,
    _drop_page_cache,
    _set,
)

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


# Sequences that share a cache


def opened(path: Path | None = None, slots: int = 1, ctx: int | None = None) -> LlamaCppEngine:
    state_dir = "" if path is None else str(path.parent)
    model = None if path is None else str(path)
    engine = open_engine(Load("llama_cpp", model, state_dir, ctx, slots, 1, 0))
    assert isinstance(engine, LlamaCppEngine)
    return engine


class Keeps:
    """A picker that keeps what it was shown."""

    def pick(self, logits: Logits) -> int:
        self.logits = logits.copy()
        return int(logits.argmax())


def read(engine: LlamaCppEngine, sequence: int, position: int, tokens: list[int]) -> Logits:
    """The logits behind the last of the tokens."""
    picker = Keeps()
    engine.decode([BatchChunk(sequence, position, tokens, outputs=1)])
    engine.sample(sequence, picker)
    return picker.logits


@pytest.fixture
def engine() -> Iterator[LlamaCppEngine]:
    engine = opened(slots=2)
    yield engine
    engine.close()


def said(engine: LlamaCppEngine, text: str) -> list[int]:
    return ChatEncoder(engine).encode([ChatMessage("user", text)])


def test_a_copy_goes_on_as_its_source_would(engine: LlamaCppEngine):
    prompt = said(engine, "please turn on the light in the kitchen")
    read(engine, 0, 0, prompt[:-1])
    engine.copy(0, 1, len(prompt) - 1)

    assert np.array_equal(
        read(engine, 1, len(prompt) - 1, prompt[-1:]), read(engine, 0, len(prompt) - 1, prompt[-1:])
    )


def test_a_copy_outlives_its_source(engine: LlamaCppEngine):
    prompt = said(engine, "please turn on the light in the kitchen")
    read(engine, 0, 0, prompt[:-1])
    engine.copy(0, 1, len(prompt) - 1)
    expected = read(engine, 0, len(prompt) - 1, prompt[-1:])
    engine.forget(0, 0)
    read(engine, 0, 0, said(engine, "something else that takes the cells which are free now"))

    assert np.array_equal(read(engine, 1, len(prompt) - 1, prompt[-1:]), expected)


def test_a_part_is_copied_to_branch_from(engine: LlamaCppEngine):
    one = said(engine, "turn on the light in the kitchen")
    other = said(engine, "turn on the light in the garage")
    shared = next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    read(engine, 0, 0, other[:shared])
    expected = read(engine, 0, shared, other[shared:])
    engine.forget(0, 0)
    read(engine, 0, 0, one)
    engine.copy(0, 1, shared)

    assert np.array_equal(read(engine, 1, shared, other[shared:]), expected)


def test_the_sequence_behind_those_of_the_slots_keeps_what_is_copied(engine: LlamaCppEngine):
    expected = read(engine, 0, 0, [100, 101])
    engine.forget(0, 1)
    engine.copy(0, engine.slots, 1)
    engine.forget(0, 0)
    engine.copy(engine.slots, 1, 1)

    assert np.array_equal(read(engine, 1, 1, [101]), expected)


def test_what_a_copy_adds_is_not_seen_by_its_source(engine: LlamaCppEngine):
    prompt = said(engine, "please turn on the light in the kitchen")
    read(engine, 0, 0, prompt[:-1])
    engine.copy(0, 1, len(prompt) - 1)
    expected = read(engine, 0, len(prompt) - 1, prompt[-1:])
    engine.forget(0, len(prompt) - 1)
    read(engine, 1, len(prompt) - 1, said(engine, "and now for something different"))

    assert np.array_equal(read(engine, 0, len(prompt) - 1, prompt[-1:]), expected)


def test_forgotten_cells_can_be_filled_again(engine: LlamaCppEngine):
    step = engine.max_batch_tokens
    for _ in range(2):
        for begin in range(0, engine.cells, step):
            engine.decode([BatchChunk(0, begin, [100] * min(step, engine.cells - begin), 1)])
        with pytest.raises(EngineFailed):
            engine.decode([BatchChunk(1, 0, [100], outputs=1)])
        engine.forget(0, 0)

    assert np.isfinite(read(engine, 1, 0, [100])).all()


def test_copies_take_no_cells(engine: LlamaCppEngine):
    step = engine.max_batch_tokens
    count = engine.cells - step
    for begin in range(0, count, step):
        engine.decode([BatchChunk(0, begin, [100] * step, 1)])
    engine.copy(0, 1, count)
    engine.copy(0, engine.slots, count)
    engine.decode([BatchChunk(1, count, [100] * step, 1)])
    engine.forget(0, 0)

    with pytest.raises(EngineFailed):  # the others hold them still
        engine.decode([BatchChunk(0, 0, [100], outputs=1)])


# Answers through the step loop

EVAL = Path(__file__).parents[2] / "tools/tiny_model/eval/commands.json"
TIE = 0.2
"""Two logits closer than this may change places: results depend on the shape of the batch."""


class Cheap(StepCosts):
    """Every draft seems worth it."""

    def decode_s(self, width: int) -> float:
        return 0.01


class Gap:
    """How far the best logit is ahead of the second, each time that a token is chosen."""

    def __init__(self, picker: Picker, gaps: list[float]) -> None:
        self._picker, self._gaps = picker, gaps

    def pick(self, logits: Logits) -> int:
        second, best = np.partition(logits, -2)[-2:]
        self._gaps.append(float(best - second))
        return self._picker.pick(logits)


class Served:
    """A step loop over the bundled model: the tokens of its answers, and its ends."""

    def __init__(
        self,
        slots: int,
        ctx: int | None = None,
        *,
        speculates: bool,
        system_prompt: str | None = None,
    ) -> None:
        self.engine = opened(slots=slots, ctx=ctx)
        self.gaps: list[float] = []
        sample = self.engine.sample
        self.engine.sample = lambda sequence, picker, row=0: sample(  # type: ignore[method-assign]
            sequence, Gap(picker, self.gaps), row
        )
        self.answers: dict[int, list[int]] = {}
        self.ends: dict[int, Finished] = {}
        self.loop = StepLoop(
            self.engine,
            self._emit,
            costs=Cheap() if speculates else None,
            system_prompt=system_prompt,
            speculates=speculates,
        )
        finish = self.loop._finish

        def finished(run: Run) -> None:
            self.answers[run.job] = list(run.answer)
            finish(run)

        self.loop._finish = finished  # type: ignore[method-assign]

    def _emit(self, frame: Up) -> None:
        if isinstance(frame, Finished):
            self.ends[frame.job] = frame

    def run(self, *commands: Submit) -> None:
        for command in commands:
            self.loop.submit(command)
        while not self.loop.idle:
            self.loop.step()


def test_slots_prefixes_and_drafts_change_nothing_of_a_greedy_answer(
    capsys: pytest.CaptureFixture[str],
):
    system = ChatMessage("system", "You switch the devices of a home.")
    asked = [case["prompt"] for case in json.loads(EVAL.read_text())][:40]
    commands = [
        submit(job, said, client=f"client {job % 3}", before=(system,), max_tokens=50)
        for job, said in enumerate(asked + asked[:20] + asked[:8])
    ]
    alone = Served(1, speculates=False)
    gaps = {}
    for command in commands:
        alone.gaps.clear()
        alone.run(command)
        gaps[command.job] = list(alone.gaps)
        alone.loop.forget_prefixes()
    together = Served(4, speculates=True, system_prompt=system.content)
    together.run()
    for begin in range(0, len(commands), 7):
        together.run(*commands[begin : begin + 7])

    ties = 0
    for job, answer in alone.answers.items():
        other = together.answers[job]
        if answer == other:
            continue
        at = next(n for n, (a, b) in enumerate(zip(answer, other, strict=False)) if a != b)
        assert gaps[job][at] < TIE, f"{asked[job % 40]!r} parts at {gaps[job][at]:.2f}"
        ties += 1
    ends = together.ends.values()
    cached, drafted, accepted = (
        [getattr(end, name) for end in ends]
        for name in ("cached_tokens", "drafted_tokens", "accepted_tokens")
    )
    assert (sum(cached) > 0, sum(drafted) > sum(accepted) > 0) == (True, True)
    assert {end.cached_tokens for end in alone.ends.values()} == {0}
    with capsys.disabled():
        print(  # noqa: T201 (what a passing run has to tell)
            f"\n{len(commands)} answers, {ties} of them diverge at a tie of less than {TIE}; "
            f"{sum(accepted)} of {sum(drafted)} drafted tokens came true"
        )
    for served in (alone, together):
        served.engine.close()


def test_the_operators_prompt_is_cached_for_the_first_who_asks():
    system = ChatMessage("system", "You switch the devices of a home.")
    served = Served(2, speculates=False, system_prompt=system.content)
    served.run()
    served.run(submit(1, "turn on the light", before=(system,), max_tokens=5))
    served.engine.close()

    assert served.ends[1].cached_tokens > 0


def test_a_cache_that_is_full_to_the_last_cell_fails_nobody():
    """Answers without an end fill all that they reserved, with drafts on the way."""
    served = Served(3, ctx=256, speculates=True)
    served.engine.chat = replace(served.engine.chat, stop_ids=frozenset())
    said = "turn on the light in the kitchen and in the hall, " * 6
    served.run(*(submit(job, said, client=str(job % 4), max_tokens=2000) for job in range(7)))
    served.engine.close()

    ends = [served.ends[job] for job in range(7)]
    assert {end.finish_reason for end in ends} == {"length"}
    assert {end.prompt_tokens + end.completion_tokens for end in ends} == {256}


# Longrope

ORIGINAL_CTX = 256
LONGROPE = {
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_size": 64,
    "rotated": 64,
    "hidden": 256,
    "feed_forward": 512,
    "context_length": 4096,
    "original_context_length": ORIGINAL_CTX,
}


@pytest.fixture(scope="module")
def longrope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that changes its rope factors behind 256 tokens."""
    entry = read_catalogue().find("phi-3.5-mini-instruct")
    path = tmp_path_factory.mktemp("longrope") / "shape.gguf"
    write_shape_file(Entry.model_validate({**entry.model_dump(), **LONGROPE}), "q8_0", path)
    return path


def last_logits(path: Path, slots: int, ctx: int) -> Logits:
    engine = opened(path, slots, ctx)
    logits = read(engine, 0, 0, [1 + 37 * number % 30000 for number in range(200)])
    engine.close()
    return logits


def test_a_shared_cache_beyond_the_original_context_keeps_the_short_factors(longrope: Path):
    alone = last_logits(longrope, slots=1, ctx=ORIGINAL_CTX)
    shared = last_logits(longrope, slots=4, ctx=ORIGINAL_CTX)

    assert np.abs(alone - shared).max() < 1e-3


def test_a_context_beyond_the_original_one_takes_the_long_factors(longrope: Path):
    short = last_logits(longrope, slots=1, ctx=ORIGINAL_CTX)
    long = last_logits(longrope, slots=1, ctx=4 * ORIGINAL_CTX)

    assert np.abs(short - long).max() > 0.03


def test_a_shared_cache_of_long_contexts_takes_the_long_factors_too(longrope: Path):
    alone = last_logits(longrope, slots=1, ctx=2 * ORIGINAL_CTX)
    shared = last_logits(longrope, slots=2, ctx=2 * ORIGINAL_CTX)

    assert np.abs(alone - shared).max() < 1e-3
