"""The next batch: who is in it, and how much of each prompt and draft."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.batching import (
    ALONE_CHUNK_S,
    BLOCK_ROWS,
    CHUNK_S,
    FIRST_CHUNK_TOKENS,
    JOINED,
    Part,
    next_batch,
)
from edged.engine.costs import StepCosts
from edged.engine.lookup import Lookup, Speculation
from edged.engine.prefixes import Held
from edged.engine.run import Run
from edged.engine.sampling import Sampler
from edged.engine.text import TextStream
from edged.messages import Sampling

SAMPLING = Sampling(100, 0, 0, 1, 0, 1, 1)
MOST = {"max_batch_tokens": 512, "max_outputs": 11}


def run(
    prompt: list[int],
    answer: tuple[int, ...] = (),
    *,
    index: int = 0,
    held: int | None = None,
    max_tokens: int = 100,
    priority: int = 5,
    reserved: int | None = None,
) -> Run:
    """A prompt of which ``held`` tokens are read, or its answer so far."""
    text = prompt + list(answer)
    tokens = text[:-1] if answer else prompt[: held or 0]
    lookup = Lookup(prompt)
    for token in answer:
        lookup.add(token)
    return Run(
        job=index,
        rank=(-priority, index),
        prompt=prompt,
        held=Held(index, "", list(tokens), [], reserved or len(prompt) + max_tokens),
        sampler=Sampler(SAMPLING),
        text=TextStream((), strip_leading_space=False),
        max_tokens=max_tokens,
        grammar=None,
        cached_tokens=0,
        lookup=lookup,
        answer=list(answer),
    )


def costs(prefill_s_per_token: float | None = None, **steps: float) -> StepCosts:
    known = StepCosts()
    known.prefill_s_per_token = prefill_s_per_token
    for width, took_s in steps.items():
        known.learn_decode(int(width.removeprefix("w")), took_s)
    return known


FLAT = {"w1": 0.1, "w16": 0.12}
"""What a machine takes that is bound by its memory."""


def batch(
    runs: list[Run], known: StepCosts | None = None, *, speculates: bool = True, **most: int
) -> list[Part]:
    speculation = Speculation() if speculates else None
    return next_batch(runs, known or costs(**FLAT), speculation, **(MOST | most))


def sizes(parts: list[Part]) -> dict[int, int]:
    """How many tokens of each run."""
    return {part.run.job: len(part.chunk.tokens) for part in parts}


def drafted(part: Part) -> int:
    return len(part.draft.tokens) if part.draft else 0


# Answers


def test_an_answer_goes_on_from_its_last_token() -> None:
    (part,) = batch([run([1, 2, 3], (7, 8), index=4)])

    chunk = part.chunk
    assert (chunk.sequence, chunk.position, chunk.tokens, chunk.outputs) == (4, 4, [8], 1)


def test_every_answer_is_in_every_batch() -> None:
    parts = batch([run([1], (7,), index=0), run([1] * 9, index=1), run([1], (8,), index=2)])

    assert [part.run.job for part in parts if part.run.is_answering] == [0, 2]


# Prompts


@pytest.mark.parametrize(
    ("per_token_s", "answers", "tokens"),
    [
        (0.01, 0, 100),
        (0.01, 1, 23),  # 0.25 s are 25 tokens, in whole blocks 24 with the answer's
        (0.001, 1, 247),
    ],
)
def test_a_prompt_is_read_in_chunks_sized_to_a_time(
    per_token_s: float, answers: int, tokens: int
) -> None:
    """1 s where nobody is held up, 0.25 s where somebody is."""
    others = [run([1], (7,), index=number) for number in range(1, answers + 1)]
    parts = batch([run([1] * 600), *others], costs(per_token_s, **FLAT))

    assert sizes(parts)[0] == tokens


def test_a_chunk_takes_no_longer_than_its_time() -> None:
    for per_token_s in (0.0005, 0.0021, 0.0083):
        known = costs(per_token_s, **FLAT)
        beside = sizes(batch([run([1] * 600), run([1], (7,), index=1)], known))[0]
        alone = sizes(batch([run([1] * 4000)], known))[0]
        assert (beside * per_token_s <= CHUNK_S, alone * per_token_s <= ALONE_CHUNK_S) == (
            True,
            True,
        )


def test_a_slow_machine_still_gets_on_with_a_prompt() -> None:
    assert sizes(batch([run([1] * 600)], costs(5.0, **FLAT))) == {0: BLOCK_ROWS}


@pytest.mark.parametrize("answering", [1, 2, 3, 4, 7])
def test_answers_and_chunk_fill_whole_blocks(answering: int) -> None:
    runs = [run([1] * 600), *(run([1], (7,), index=1 + each) for each in range(answering))]

    assert sum(sizes(batch(runs, costs(0.03, **FLAT))).values()) % BLOCK_ROWS == 0


def test_of_the_widths_that_keep_to_the_time_the_most_efficient_is_taken() -> None:
    known = StepCosts()
    for width, took_s in ((1, 0.07), (4, 0.17), (8, 0.32), (12, 0.5), (16, 0.5)):
        known.learn_decode(width, took_s)
    known.prefill_s_per_token = 0.03
    beside = {
        answering: sum(
            sizes(
                batch(
                    [run([1] * 600), *(run([1], (7,), index=1 + n) for n in range(answering))],
                    known,
                )
            ).values()
        )
        for answering in (1, 4)
    }

    assert beside == {1: 8, 4: 16}


def test_a_gentler_pace_reads_shorter_chunks() -> None:
    parts = next_batch(
        [run([1] * 600)], costs(0.01, **FLAT), Speculation(), **MOST, most_chunk_s=0.2
    )

    assert sizes(parts) == {0: 20}


def test_a_prompt_is_begun_with_a_small_chunk() -> None:
    assert sizes(batch([run([1] * 600)], StepCosts())) == {0: FIRST_CHUNK_TOKENS}


def test_a_fast_machine_reads_no_more_than_a_batch_holds() -> None:
    runs = [run([1] * 600), *(run([1], (7,), index=number) for number in (1, 2, 3))]
    parts = batch(runs, costs(1e-9, **FLAT))

    assert (sizes(parts)[0], sum(sizes(parts).values())) == (509, 512)


def test_a_prompt_is_read_on_from_what_is_held() -> None:
    prompt = list(range(50))
    (part,) = batch([run(prompt, held=20)], StepCosts())

    assert (part.chunk.position, part.chunk.tokens) == (20, prompt[20:])


@pytest.mark.parametrize(("held", "outputs"), [(0, 0), (51, 0), (52, 1), (99, 1)])
def test_a_prompt_is_sampled_from_when_it_is_read_to_its_end(held: int, outputs: int) -> None:
    (part,) = batch([run([1] * 100, held=held)], StepCosts())

    assert part.chunk.outputs == outputs


def test_a_short_rest_is_read_with_the_rest_of_its_prompt() -> None:
    most = round(JOINED * FIRST_CHUNK_TOKENS)

    assert sizes(batch([run([1] * most)], StepCosts())) == {0: most}
    assert sizes(batch([run([1] * (most + 1))], StepCosts())) == {0: FIRST_CHUNK_TOKENS}


def test_a_short_rest_waits_where_others_are_answered() -> None:
    runs = [run([1] * (FIRST_CHUNK_TOKENS + 1)), run([1], (7,), index=1)]

    assert sizes(batch(runs, StepCosts())) == {0: FIRST_CHUNK_TOKENS - 1, 1: 1}


def test_the_more_urgent_prompt_is_read_first() -> None:
    runs = [run([1] * 100, index=1, priority=5), run([1] * 100, index=2, priority=9)]

    assert sizes(batch(runs, StepCosts())) == {2: FIRST_CHUNK_TOKENS}


def test_of_equally_urgent_prompts_the_older_is_read_first() -> None:
    runs = [run([1] * 100, index=2), run([1] * 100, index=1)]

    assert sizes(batch(runs, StepCosts())) == {1: FIRST_CHUNK_TOKENS}


def test_what_one_prompt_leaves_of_a_chunk_goes_to_the_next() -> None:
    runs = [run([1] * 10, index=1), run([1] * 100, index=2)]

    assert sizes(batch(runs, StepCosts())) == {1: 10, 2: FIRST_CHUNK_TOKENS - 10}


# Drafts

REPEATS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20] * 3


def repeating(answered: int = 4, **how: int) -> Run:
    """An answer that follows its prompt, which repeats itself."""
    return run(REPEATS, tuple(REPEATS[:answered]), **how)


def test_a_draft_is_decoded_behind_the_token_that_was_chosen() -> None:
    (part,) = batch([repeating()])

    assert part.chunk.tokens == [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]


def test_every_drafted_token_and_the_one_before_them_can_be_sampled() -> None:
    (part,) = batch([repeating()])

    assert (drafted(part), part.chunk.outputs) == (10, 11)


def test_nothing_is_drafted_where_that_is_not_wanted() -> None:
    assert sizes(batch([repeating()], speculates=False)) == {0: 1}


def test_nothing_is_drafted_while_a_prompt_is_read() -> None:
    assert sizes(batch([repeating(), run([1] * 9, index=1)], StepCosts()))[0] == 1


def test_nothing_is_drafted_before_a_step_was_measured() -> None:
    assert sizes(batch([repeating()], StepCosts())) == {0: 1}


def test_nothing_is_drafted_where_it_does_not_pay() -> None:
    assert sizes(batch([repeating()], costs(w1=0.1, w16=1.6))) == {0: 1}


def test_a_draft_that_pays_alone_is_not_made_where_many_would_wait_for_it() -> None:
    known = costs(w1=0.06, w2=0.095, w3=0.128, w4=0.16, w16=0.64)
    others = [run([number] * 3, (99,), index=number) for number in range(1, 4)]

    assert (
        sizes(batch([repeating()], known))[0] > 1,
        sizes(batch([repeating(), *others], known)),
    ) == (
        True,
        {0: 1, 1: 1, 2: 1, 3: 1},
    )


@pytest.mark.parametrize("max_outputs", [3, 4, 9, 11])
def test_answers_share_the_outputs_of_a_batch(max_outputs: int) -> None:
    parts = batch([repeating(index=index) for index in range(3)], max_outputs=max_outputs)

    assert sum(part.chunk.outputs for part in parts) == max_outputs


@pytest.mark.parametrize(("left", "most"), [(1, 0), (2, 1), (5, 4)])
def test_no_token_is_drafted_behind_the_last_of_an_answer(left: int, most: int) -> None:
    (part,) = batch([repeating(answered=6, max_tokens=6 + left, reserved=1000)])

    assert drafted(part) == most


@pytest.mark.parametrize(("left", "most"), [(1, 0), (2, 1), (5, 4)])
def test_no_token_is_drafted_beyond_what_is_reserved(left: int, most: int) -> None:
    (part,) = batch([repeating(answered=6, reserved=len(REPEATS) + 6 + left)])

    assert drafted(part) == most


RUNS = st.tuples(
    st.lists(st.integers(1, 3), min_size=1, max_size=40),
    st.lists(st.integers(1, 3), max_size=20).map(tuple),
    st.integers(0, 39),
    st.integers(1, 30),
    st.integers(0, 30),
)


@given(st.lists(RUNS, min_size=1, max_size=4), st.floats(1e-6, 0.1), st.integers(0, 7))
@settings(deadline=None, max_examples=200)
def test_no_batch_breaks_a_limit(
    drawn: list[tuple[list[int], tuple[int, ...], int, int, int]], per_token_s: float, spare: int
) -> None:
    runs = [
        run(
            prompt,
            answer,
            index=index,
            held=min(held, len(prompt) - 1),
            max_tokens=len(answer) + left,
            # A full context may leave an answer less than it asked for, but one token at least.
            reserved=len(prompt) + len(answer) + max(1, left - lacking),
        )
        for index, (prompt, answer, held, left, lacking) in enumerate(drawn)
    ]
    parts = batch(runs, costs(per_token_s, **FLAT), max_batch_tokens=20, max_outputs=4 + spare)

    assert parts
    assert len(parts) == len({part.run.job for part in parts})
    assert sum(len(part.chunk.tokens) for part in parts) <= 20
    assert sum(part.chunk.outputs for part in parts) <= 4 + spare
    for part in parts:
        chunk, held = part.chunk, part.run.held
        assert chunk.tokens
        assert (chunk.sequence, chunk.position) == (held.index, len(held.tokens))
        if part.run.is_answering:
            assert len(part.run.answer) + drafted(part) + 1 <= part.run.max_tokens
            assert len(held.tokens) + len(chunk.tokens) + 1 <= held.reserved
        else:
            assert drafted(part) == 0
