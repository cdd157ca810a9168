"""The hot loop over engines that repeat themselves: drafts change the time, never the text."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine import step_loop
from edged.engine.costs import StepCosts
from edged.engine.echo import EchoEngine
from edged.engine.frames import Cancel
from edged.engine.protocol import BatchChunk, Logits, Picker
from edged.errors import EngineFailed
from tests.engine.loop_bench import Bench, bench, submit

LITANY = "the cat sat on the mat and the dog sat on the log, " * 4


class Ticking:
    """A clock that says that every step takes as long, whatever its width."""

    STEP_S = 1e-4

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += self.STEP_S
        return self.now_s


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_loop, "time", Ticking())
        yield


class Mumbles(EchoEngine):
    """Likes two or three letters after each pair of letters, so that it half repeats itself."""

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        tokens = self._tokens[sequence][: self._outputs[sequence][row]]
        luck = np.random.default_rng(tokens[-2:])
        logits: Logits = np.full(261, -10, dtype=np.float32)
        logits[luck.integers(97, 105, 3)] = luck.integers(0, 3, 3)
        return picker.pick(logits)


class FailsLate(EchoEngine):
    """Gives no number for the ``n``-th token of an answer."""

    n = 30

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        self.n -= 1
        if self.n == 0:
            raise EngineFailed("no number")
        return super().sample(sequence, picker, row)


def flat() -> StepCosts:
    """What a start has measured of such steps: every draft is worth it."""
    costs = StepCosts()
    for width in (1, 32):
        costs.learn_decode(width, Ticking.STEP_S)
    return costs


def both(kind: type[EchoEngine] = EchoEngine, slots: int = 1) -> tuple[Bench, Bench]:
    """With drafts, and without."""
    return (
        bench(slots=slots, kind=kind, costs=flat()),
        bench(slots=slots, kind=kind, costs=flat(), speculates=False),
    )


def decoding(batches: Sequence[Sequence[BatchChunk]]) -> list[int]:
    """How wide the steps were in which only answers went on."""
    only_answers = [b for b in batches if all(c.outputs == len(c.tokens) for c in b)]
    return [sum(len(chunk.tokens) for chunk in batch) for batch in only_answers]


def test_an_answer_that_repeats_what_was_said_takes_fewer_steps() -> None:
    drafting, plain = both()
    for on in (drafting, plain):
        on.run(submit(1, LITANY))

    assert (drafting.text(1), plain.text(1)) == (LITANY.strip(), LITANY.strip())
    assert len(drafting.batches) < len(plain.batches) / 2


def test_an_end_tells_how_many_drafted_tokens_came_true() -> None:
    drafting, _ = both()
    drafting.run(submit(1, LITANY))

    end = drafting.finished(1)
    assert 0 < end.accepted_tokens <= end.drafted_tokens
    assert end.completion_tokens == len(LITANY)  # its last space is not said; the end is a token


def test_without_speculation_every_step_decodes_one_token() -> None:
    _, plain = both()
    plain.run(submit(1, LITANY))

    end = plain.finished(1)
    assert (set(decoding(plain.batches)), end.drafted_tokens) == ({1}, 0)


def test_no_step_has_more_outputs_than_the_engine_takes() -> None:
    drafting, _ = both(slots=3)
    drafting.run(*(submit(job, LITANY) for job in (1, 2, 3)))

    widest = max(decoding(drafting.batches))
    assert 3 < widest <= drafting.engine.max_outputs


def test_pieces_count_every_token_that_came_at_once() -> None:
    drafting, plain = both()
    for on in (drafting, plain):
        on.run(submit(1, LITANY))

    counts = [[getattr(frame, "n", None) for frame in on.emitted] for on in (drafting, plain)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("length", [1, 2, 20, 21, 22, 23, 24, 25, 26, 27])
def test_an_answer_is_never_longer_than_asked_for(length: int) -> None:
    drafting, _ = both()
    drafting.run(submit(1, LITANY, max_tokens=length))

    end = drafting.finished(1)
    assert (drafting.text(1), end.completion_tokens) == (LITANY[:length], length)


@pytest.mark.parametrize("ctx", range(300, 308))
def test_drafts_do_not_reach_beyond_the_context(ctx: int) -> None:
    on = bench(ctx=ctx, costs=flat())
    on.run(submit(1, LITANY))

    end = on.finished(1)
    last = max(chunk.position + len(chunk.tokens) for batch in on.batches for chunk in batch)
    assert end.prompt_tokens + end.completion_tokens == ctx
    assert last < ctx


def test_a_stop_sequence_within_a_draft_ends_the_answer_there() -> None:
    drafting, plain = both()
    for on in (drafting, plain):
        on.run(submit(1, LITANY, stop=("dog sat on the log, the cat",)))

    ends = [(on.text(1), on.finished(1).completion_tokens) for on in (drafting, plain)]
    assert ends[0] == ends[1]


def test_what_comes_after_an_answer_with_drafts_starts_from_the_right_tokens() -> None:
    drafting, _ = both()
    drafting.run(submit(1, LITANY, max_tokens=100))
    drafting.run(submit(2, LITANY, max_tokens=100))

    assert drafting.text(2) == LITANY[:100]


def test_a_cancel_between_steps_with_drafts_keeps_what_was_said() -> None:
    drafting, _ = both()
    drafting.loop.submit(submit(1, LITANY))
    drafting.step(16)
    drafting.loop.cancel(Cancel(1, "cancelled"))

    said = drafting.text(1)
    assert (LITANY.startswith(said), len(said)) == (True, drafting.finished(1).completion_tokens)


def test_a_failure_within_a_draft_refuses_the_answer_and_leaves_a_clean_slot() -> None:
    on = bench(kind=FailsLate, costs=flat())
    on.run(submit(1, LITANY))
    on.run(submit(2, LITANY))

    assert (on.refused(1).code, on.text(2)) == ("engine_failed", LITANY.strip())


def test_while_a_prompt_is_read_nobody_drafts() -> None:
    drafting, _ = both(slots=2)
    drafting.loop.submit(submit(1, LITANY))
    while not drafting.emitted:
        drafting.step()
    drafting.loop.submit(submit(2, "x" * 200))
    drafting.step()

    answer, prompt = sorted(drafting.batches[-1], key=lambda chunk: chunk.sequence)
    assert (len(answer.tokens), len(prompt.tokens) > prompt.outputs) == (1, True)


LETTERS = st.text("abc ", min_size=1, max_size=120).map(str.strip).filter(bool)


@given(
    st.lists(st.tuples(LETTERS, st.integers(1, 130)), min_size=1, max_size=4),
    st.lists(st.text("abc ", min_size=2, max_size=6), max_size=2).map(tuple),
    st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_drafts_change_nothing_of_an_answer(
    asked: list[tuple[str, int]], stop: tuple[str, ...], slots: int
) -> None:
    ends = []
    for on in both(slots=slots):
        on.run(
            *(
                submit(job, said, max_tokens=length, stop=stop)
                for job, (said, length) in enumerate(asked)
            )
        )
        found = [on.finished(job) for job in range(len(asked))]
        ends.append([(on.text(e.job), e.finish_reason, e.completion_tokens) for e in found])

    assert ends[0] == ends[1]


@given(st.integers(0, 1000), st.floats(0, 1.2), st.floats(1, 1.3), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_a_seed_gives_the_same_text_with_drafts_as_without(
    seed: int, temperature: float, repeat_penalty: float, slots: int
) -> None:
    said = []
    for on in both(kind=Mumbles, slots=slots):
        how = {"temperature": temperature, "repeat_penalty": repeat_penalty, "max_tokens": 150}
        on.run(*(submit(job, "go", seed=seed + job, **how) for job in range(slots)))
        said.append([on.text(job) for job in range(slots)])

    assert said[0] == said[1]


def test_the_half_repeated_text_of_that_test_is_drafted_and_half_refused() -> None:
    on, _ = both(kind=Mumbles)
    on.run(submit(1, "go", seed=1, temperature=0.7, max_tokens=400))

    end = on.finished(1)
    assert 0 < end.accepted_tokens < end.drafted_tokens
