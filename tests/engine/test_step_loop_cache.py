"""The hot loop over the echo engine: what prompts start from, and who waits for room."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.batching import FIRST_CHUNK_TOKENS
from edged.engine.echo import EchoEngine
from edged.engine.frames import Cancel, Load, Submit
from edged.engine.protocol import BatchChunk
from edged.errors import EngineFailed
from edged.messages import ChatMessage
from tests.engine.loop_bench import FORMAT_TOKENS, Bench, Breaks, bench, submit

SYSTEM = ChatMessage("system", "answer in one short sentence")
# <s> <|system|> … <|end|> <|user|>
SYSTEM_TOKENS = 4 + len(SYSTEM.content)


class OneSequence(EchoEngine):
    """Has no sequence to spare, as ctransformers."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.sequences = 1

    def copy(self, source: int, target: int, tokens: int) -> None:
        raise AssertionError("there is one sequence")


class BreaksHalfway(EchoEngine):
    """Fails, once it is told to, when it has read half of each chunk."""

    decoding = False

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        if self.decoding:
            for chunk in batch:
                self._tokens[chunk.sequence] += chunk.tokens[: len(chunk.tokens) // 2]
            raise EngineFailed("decode returned -3")
        super().decode(batch)


def cached(on: Bench, job: int) -> int:
    return on.finished(job).cached_tokens


# What prompts start from


def test_the_first_prompt_starts_from_nothing() -> None:
    on = bench()
    on.run(submit(1, "good morning", client="ann"))

    assert cached(on, 1) == 0


def test_a_second_prompt_of_a_client_starts_from_what_both_begin_with() -> None:
    on = bench(slots=2)
    on.run(submit(1, "good morning", client="ann"))
    on.run(submit(2, "good evening", client="ann"))

    assert (cached(on, 2), on.text(2)) == (len("<") + len(">") + len("good "), "good evening")


def test_only_what_is_not_cached_is_read() -> None:
    on = bench(slots=2)
    on.run(submit(1, "good morning", client="ann"))
    before = len(on.batches)
    on.run(submit(2, "good evening", client="ann", max_tokens=1))

    positions = [chunk.position for batch in on.batches[before:] for chunk in batch]
    assert positions[0] == cached(on, 2) == 7


def test_a_conversation_goes_on_from_the_answer_before() -> None:
    on = bench(slots=2)
    on.run(submit(1, "one", client="ann"))
    before = (ChatMessage("user", "one"), ChatMessage("assistant", "one"))
    on.run(submit(2, "two", client="ann", before=before))

    assert (cached(on, 2), on.text(2)) == (FORMAT_TOKENS + 2 * len("one"), "two")


def test_the_same_prompt_again_reads_one_token() -> None:
    on = bench()
    on.run(submit(1, "good morning", client="ann"))
    on.run(submit(2, "good morning", client="ann"))

    assert (cached(on, 2), on.text(2)) == (FORMAT_TOKENS + 12 - 1, "good morning")


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_stranger_starts_from_nothing_whatever_is_cached(slots: int) -> None:
    on = bench(slots=slots)
    on.run(*(submit(job, "good morning", client="ann") for job in range(1, slots + 1)))
    on.run(submit(9, "good morning", client="bob"))

    assert (cached(on, 9), on.text(9)) == (0, "good morning")


def test_a_strangers_prompt_is_read_in_as_many_steps_as_any_other() -> None:
    """How soon an answer comes tells nothing of what others have said."""
    on = bench(slots=2)
    secret = "the code of the garage is 4711"
    on.run(submit(1, secret, client="ann"))
    steps = []
    for job, guess in enumerate((secret, "the code of the garage is 1234"), start=2):
        before = len(on.batches)
        on.run(submit(job, guess, client="eve", max_tokens=1))
        on.loop.forget_prefixes()
        steps.append([[len(chunk.tokens) for chunk in batch] for batch in on.batches[before:]])

    assert steps[0] == steps[1]


def test_a_cancelled_prompt_leaves_what_was_read_of_it() -> None:
    on = bench()
    on.loop.submit(submit(1, "x" * 100, client="ann"))
    on.step()
    on.loop.cancel(Cancel(1, "cancelled"))
    on.run(submit(2, "x" * 100, client="ann"))

    assert (cached(on, 2), on.text(2)) == (FIRST_CHUNK_TOKENS, "x" * 100)


def test_prompts_that_are_read_together_do_not_start_from_each_other() -> None:
    on = bench(slots=2)
    on.run(*(submit(job, "good morning", client="ann") for job in (1, 2)))

    assert (cached(on, 1), cached(on, 2)) == (0, 0)


def test_an_engine_with_one_sequence_starts_from_what_it_holds() -> None:
    on = bench(kind=OneSequence, system_prompt=SYSTEM.content)
    on.run(submit(1, "good morning", client="ann", before=(SYSTEM,)))
    on.run(submit(2, "good evening", client="ann", before=(SYSTEM,)))
    on.run(submit(3, "good evening", client="bob", before=(SYSTEM,)))

    assert [cached(on, job) for job in (1, 2, 3)] == [0, SYSTEM_TOKENS + len("good "), 0]


def test_what_a_failing_step_left_behind_is_no_part_of_the_next_prompt() -> None:
    on = bench(kind=BreaksHalfway)
    on.engine.decoding = True  # type: ignore[attr-defined]
    on.run(submit(1, "good morning", client="ann"))
    on.engine.decoding = False  # type: ignore[attr-defined]
    on.run(submit(2, "good morning", client="ann"))

    assert (on.text(2), cached(on, 2)) == ("good morning", 0)


# The operator's prompt


def test_the_operators_prompt_is_read_before_anybody_asks() -> None:
    on = bench(system_prompt=SYSTEM.content)
    before = on.loop.idle
    on.run()

    read = sum(len(chunk.tokens) for batch in on.batches for chunk in batch)
    assert (before, read, on.emitted) == (False, SYSTEM_TOKENS, [])


@pytest.mark.parametrize("client", ["ann", "bob", ""])
def test_the_operators_prompt_is_cached_for_everybody(client: str) -> None:
    on = bench(system_prompt=SYSTEM.content)
    on.run()
    on.run(submit(1, "hello", client=client, before=(SYSTEM,)))

    assert (cached(on, 1), on.text(1)) == (SYSTEM_TOKENS, "hello")


def test_many_who_ask_at_once_all_start_from_the_operators_prompt() -> None:
    on = bench(slots=3, system_prompt=SYSTEM.content)
    on.run()
    clients = enumerate(("ann", "bob", "eve"), start=1)
    on.run(*(submit(job, f"I am {who}", client=who, before=(SYSTEM,)) for job, who in clients))

    assert [(cached(on, job), on.text(job)) for job in (1, 2, 3)] == [
        (SYSTEM_TOKENS, f"I am {who}") for who in ("ann", "bob", "eve")
    ]


def test_behind_the_operators_prompt_a_stranger_starts_from_nothing() -> None:
    on = bench(slots=2, system_prompt=SYSTEM.content)
    on.run(submit(1, "my secret", client="ann", before=(SYSTEM,)))
    on.run(submit(2, "my secret", client="bob", before=(SYSTEM,)))

    assert cached(on, 2) == SYSTEM_TOKENS


def test_a_long_operators_prompt_is_read_in_chunks() -> None:
    on = bench(system_prompt="x" * 100)
    on.step()

    assert [[(c.position, len(c.tokens)) for c in batch] for batch in on.batches] == [
        [(0, FIRST_CHUNK_TOKENS)]
    ]


def test_a_prompt_does_not_wait_until_the_operators_is_read() -> None:
    on = bench(system_prompt="x" * 100)
    on.step()
    on.loop.submit(submit(1, "hi", client="ann", max_tokens=1))
    on.step()

    assert on.ended == [1]


def test_the_operators_prompt_is_read_on_when_nobody_is_answered() -> None:
    on = bench(system_prompt="x" * 100)
    on.step()
    on.run(submit(1, "hi", client="ann"))
    on.run(submit(2, "hi", client="ann", before=(ChatMessage("system", "x" * 100),)))

    assert cached(on, 2) == 4 + 100


def test_who_asks_while_the_operators_prompt_is_read_reads_it_for_all() -> None:
    system = ChatMessage("system", "x" * 100)
    on = bench(slots=2, system_prompt=system.content)
    on.step()
    on.loop.submit(submit(1, "hi", client="ann", before=(system,)))
    while not on.ended:
        on.step()
    on.loop.submit(submit(2, "hi", client="bob", before=(system,)))
    while len(on.ended) < 2:
        on.step()

    assert (cached(on, 1), cached(on, 2)) == (FIRST_CHUNK_TOKENS, 4 + 100)


def test_the_operators_prompt_is_read_again_by_who_asks_after_it_was_forgotten() -> None:
    on = bench(slots=2, system_prompt=SYSTEM.content)
    on.run()
    on.loop.forget_prefixes()
    on.run(submit(1, "hi", client="ann", before=(SYSTEM,)))
    on.run(submit(2, "hi", client="bob", before=(SYSTEM,)))

    assert (cached(on, 1), cached(on, 2)) == (0, SYSTEM_TOKENS)


def test_an_operators_prompt_that_fills_the_context_is_not_read() -> None:
    on = bench(ctx=64, system_prompt="x" * 100)
    on.run(submit(1, "hi"))

    assert (on.text(1), on.loop.idle) == ("hi", True)


def test_an_operators_prompt_that_cannot_be_read_is_done_without() -> None:
    on = bench(kind=BreaksHalfway, system_prompt=SYSTEM.content)
    on.engine.decoding = True  # type: ignore[attr-defined]
    on.run()
    left = any(on.engine._tokens)
    on.engine.decoding = False  # type: ignore[attr-defined]
    on.run(submit(1, "hi", before=(SYSTEM,)))

    assert (left, on.text(1), cached(on, 1)) == (False, "hi", 0)


def test_an_engine_with_one_sequence_comes_to_rest_without_reading_the_operators_prompt() -> None:
    on = bench(kind=OneSequence, system_prompt=SYSTEM.content)
    on.run()

    assert (on.loop.idle, on.batches) == (True, [])


# Forgetting


def test_after_forgetting_a_client_starts_from_nothing() -> None:
    on = bench()
    on.run(submit(1, "good morning", client="ann"))
    on.loop.forget_prefixes()
    on.run(submit(2, "good morning", client="ann"))

    assert (cached(on, 2), on.text(2)) == (0, "good morning")


def test_forgetting_does_not_touch_an_answer_that_is_being_given() -> None:
    on = bench(slots=2, system_prompt=SYSTEM.content)
    on.run(submit(1, "first", client="ann", before=(SYSTEM,)))
    on.loop.submit(submit(2, "second", client="ann", before=(SYSTEM,)))
    on.step(3)
    on.loop.forget_prefixes()
    on.run()

    assert (on.text(2), on.finished(2).finish_reason) == ("second", "stop")


# Who waits


def asks(job: int, letter: str, tokens: int = 40, **how: int) -> Submit:
    """A prompt that reserves so many tokens, half of them for its answer."""
    said = letter * (tokens // 2 - FORMAT_TOKENS)
    return submit(job, said, client=letter, max_tokens=tokens - tokens // 2, **how)


def test_what_does_not_fit_beside_those_who_run_waits() -> None:
    on = bench(slots=2, cells=60)
    on.loop.submit(asks(1, "a"))
    on.loop.submit(asks(2, "b"))
    on.step(3)

    assert {chunk.sequence for batch in on.batches for chunk in batch} == {0}


def test_what_fits_beside_those_who_run_does_not_wait() -> None:
    on = bench(slots=2, cells=80)
    on.loop.submit(asks(1, "a"))
    on.loop.submit(asks(2, "b"))
    on.step(3)

    assert {chunk.sequence for batch in on.batches for chunk in batch} == {0, 1}


def test_who_waited_is_answered_in_full() -> None:
    on = bench(slots=4, cells=60)
    on.run(*(asks(job, letter) for job, letter in enumerate("abcd", start=1)))

    assert [on.text(job) for job in range(1, 5)] == [letter * 16 for letter in "abcd"]


def test_the_more_urgent_prompt_starts_first() -> None:
    on = bench(slots=4, cells=60)
    on.run(asks(1, "a", priority=1), asks(2, "b", priority=5), asks(3, "c", priority=9))

    assert on.ended == [3, 2, 1]


def test_a_more_urgent_prompt_does_not_end_one_that_runs() -> None:
    on = bench(slots=4, cells=60)
    on.loop.submit(asks(1, "a", priority=1))
    on.step(2)
    on.run(asks(2, "b", priority=9))

    assert (on.ended, on.text(1)) == ([1, 2], "a" * 16)


def test_of_equally_urgent_prompts_the_oldest_starts_first() -> None:
    on = bench(slots=4, cells=60)
    on.run(*(asks(job, letter) for job, letter in enumerate("abcd", start=1)))

    assert on.ended == [1, 2, 3, 4]


def test_a_small_prompt_does_not_overtake_a_large_one_that_waits() -> None:
    """Else the large one might wait for ever."""
    on = bench(slots=4, cells=60)
    for command in (asks(1, "a"), asks(2, "b"), asks(3, "c", tokens=12)):
        on.loop.submit(command)
    while not on.ended:
        on.step()

    assert {chunk.sequence for batch in on.batches for chunk in batch} == {0}


def test_a_cancel_of_a_prompt_that_waits_ends_it_without_text() -> None:
    on = bench(slots=2, cells=60)
    on.loop.submit(asks(1, "a"))
    on.loop.submit(asks(2, "b"))
    on.step()
    on.loop.cancel(Cancel(2, "deadline"))

    end = on.finished(2)
    assert (end.finish_reason, end.text, end.prompt_tokens, end.completion_tokens) == (
        "deadline",
        "",
        20,
        0,
    )


def test_a_cancelled_prompt_that_waited_is_not_answered_later() -> None:
    on = bench(slots=2, cells=60)
    on.loop.submit(asks(1, "a"))
    on.loop.submit(asks(2, "b"))
    on.step()
    on.loop.cancel(Cancel(2, "cancelled"))
    on.run()

    assert (on.ended, on.text(1), on.text(2)) == ([2, 1], "a" * 16, "")


def test_a_cancel_makes_room_for_who_waits() -> None:
    on = bench(slots=2, cells=60)
    on.loop.submit(asks(1, "a"))
    on.loop.submit(asks(2, "b"))
    on.step(2)
    on.loop.cancel(Cancel(1, "cancelled"))
    on.run()

    assert on.text(2) == "b" * 16


def test_a_failing_step_makes_room_for_who_waits() -> None:
    on = bench(slots=2, cells=60, kind=Breaks)
    on.loop.submit(asks(1, "a"))
    on.loop.submit(asks(2, "b"))
    on.engine.decoding = True  # type: ignore[attr-defined]
    on.step()
    on.engine.decoding = False  # type: ignore[attr-defined]
    on.run()

    assert (on.refused(1).code, on.text(2)) == ("engine_failed", "b" * 16)


# Whatever comes

TEXTS = st.text("ab é", min_size=1, max_size=40).map(str.strip).filter(bool)
PROMPTS = st.tuples(TEXTS, st.sampled_from(["ann", "bob"]), st.booleans(), st.integers(1, 9))


@given(
    st.lists(PROMPTS, min_size=1, max_size=10),
    st.integers(1, 4),
    st.integers(128, 300),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_with_little_room_every_prompt_is_answered_and_every_slot_comes_back(
    prompts: list[tuple[str, str, bool, int]], slots: int, cells: int, data: st.DataObject
) -> None:
    on = bench(slots=slots, ctx=128, cells=cells, system_prompt=SYSTEM.content)
    cancelled = set()
    for job, (said, client, under_system, priority) in enumerate(prompts):
        before = (SYSTEM,) if under_system else ()
        on.loop.submit(submit(job, said, client=client, priority=priority, before=before))
        for _ in range(data.draw(st.integers(0, 5))):
            on.step()
            assert on.loop._prefixes.used_cells <= cells
        if data.draw(st.integers(0, 4)) == 0 and job not in on.ended:
            on.loop.cancel(Cancel(job, "cancelled"))
            cancelled.add(job)
        if data.draw(st.integers(0, 9)) == 0:
            on.loop.forget_prefixes()
    on.run()

    assert sorted(on.ended) == list(range(len(prompts)))
    for job, (said, *_) in enumerate(prompts):
        if job not in cancelled:
            assert (on.text(job), on.finished(job).finish_reason) == (said, "stop")
    slots_held = on.loop._prefixes._slots
    assert [held.reserved for held in slots_held] == [0] * slots
    assert [held.tokens for held in slots_held] == on.engine._tokens[:slots]
