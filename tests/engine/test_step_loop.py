"""The hot loop over the echo engine: slots, chunks, cancels and ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.batching import FIRST_CHUNK_TOKENS
from edged.engine.costs import FIRST_STEP_S
from edged.engine.echo import EchoEngine
from edged.engine.frames import Cancel, Finished, Piece
from edged.engine.protocol import Grammar, Logits, Picker
from tests.engine.loop_bench import FORMAT_TOKENS, Bench, Breaks, bench, submit


class Dice(EchoEngine):
    """Every letter as likely as the next, so that the seed alone decides."""

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        logits: Logits = np.full(261, -np.inf, dtype=np.float32)
        logits[ord("a") : ord("z") + 1] = 0
        return picker.pick(logits)


# One prompt


def test_a_prompt_is_answered() -> None:
    on = bench()
    on.run(submit(1, "good morning"))

    assert on.text(1) == "good morning"


def test_an_answer_that_ends_by_itself_stopped() -> None:
    on = bench()
    on.run(submit(1, "hi"))

    assert on.finished(1).finish_reason == "stop"


def test_an_end_counts_the_tokens_of_prompt_and_answer() -> None:
    on = bench()
    on.run(submit(1, "hello"))
    end = on.finished(1)

    # Five letters and the token that ends them.
    assert (end.prompt_tokens, end.cached_tokens, end.completion_tokens) == (
        FORMAT_TOKENS + 5,
        0,
        6,
    )


def test_pieces_count_the_tokens_so_far() -> None:
    on = bench()
    on.run(submit(1, "aé"))

    pieces = [(f.text, f.n) for f in on.emitted if isinstance(f, Piece)]
    assert pieces == [("a", 1), ("é", 3)]


def test_pieces_never_split_a_code_point() -> None:
    on = bench()
    on.run(submit(1, "a😀é"))

    assert [f.text for f in on.emitted if isinstance(f, Piece)] == ["a", "😀", "é"]


def test_the_end_is_the_last_frame_of_a_job() -> None:
    on = bench()
    on.run(submit(1, "hi"))

    assert [type(frame) for frame in on.emitted] == [Piece, Piece, Finished]


def test_it_is_idle_until_a_prompt_comes_and_again_when_it_is_answered() -> None:
    on = bench()
    before = on.loop.idle
    on.loop.submit(submit(1, "hi"))
    during = on.loop.idle
    on.run()

    assert (before, during, on.loop.idle) == (True, False, True)


# Ends


def test_max_tokens_ends_an_answer_for_its_length() -> None:
    on = bench()
    on.run(submit(1, "hello", max_tokens=3))

    end = on.finished(1)
    assert (on.text(1), end.finish_reason, end.completion_tokens) == ("hel", "length", 3)


def test_an_answer_that_ends_with_its_last_token_stopped() -> None:
    on = bench()
    on.run(submit(1, "hi", max_tokens=3))

    assert on.finished(1).finish_reason == "stop"


def test_a_code_point_cut_by_max_tokens_becomes_the_replacement_character() -> None:
    on = bench()
    on.run(submit(1, "a😀", max_tokens=3))

    assert on.text(1) == "a�"


def test_a_full_context_ends_an_answer_for_its_length() -> None:
    on = bench(ctx=64)
    on.run(submit(1, "x" * 40))

    end = on.finished(1)
    assert (end.finish_reason, end.prompt_tokens + end.completion_tokens) == ("length", 64)


def test_no_token_is_decoded_beyond_the_context() -> None:
    on = bench(ctx=64)
    on.run(submit(1, "x" * 59))  # one token is left for the answer

    last = max(c.position + len(c.tokens) for batch in on.batches for c in batch)
    assert (on.text(1), last) == ("x", 63)


def test_a_prompt_that_fills_the_context_is_refused_with_both_counts() -> None:
    on = bench(ctx=64)
    on.run(submit(1, "x" * 60))

    refusal = on.refused(1)
    assert (refusal.code, refusal.details) == (
        "prompt_too_long",
        {"prompt_tokens": 64, "ctx": 64},
    )


def test_a_refused_prompt_takes_no_slot() -> None:
    on = bench(ctx=64)
    on.run(submit(1, "x" * 60), submit(2, "hi"))

    assert on.text(2) == "hi"


def test_a_stop_sequence_ends_an_answer_and_is_no_part_of_it() -> None:
    on = bench()
    on.run(submit(1, "one, two, three", stop=(", th", "nowhere")))

    assert (on.text(1), on.finished(1).finish_reason) == ("one, two", "stop")


def test_a_stop_sequence_ends_an_answer_at_the_token_that_completes_it() -> None:
    on = bench()
    on.run(submit(1, "abcdef", stop=("cd",)))

    assert on.finished(1).completion_tokens == 4


def test_the_beginning_of_a_stop_sequence_comes_with_the_end() -> None:
    on = bench()
    on.run(submit(1, "one, two", stop=("two!",)))

    assert (on.text(1), on.finished(1).text) == ("one, two", "two")


# Cancels


def test_a_cancel_ends_an_answer_before_the_next_step() -> None:
    on = bench()
    on.loop.submit(submit(1, "hello"))
    on.step(3)
    on.loop.cancel(Cancel(1, "cancelled"))

    assert (on.text(1), on.finished(1).finish_reason, on.loop.idle) == ("hel", "cancelled", True)


def test_a_cancel_while_the_prompt_is_read_ends_without_text() -> None:
    on = bench()
    on.loop.submit(submit(1, "x" * 100))
    on.step()
    on.loop.cancel(Cancel(1, "deadline"))

    end = on.finished(1)
    assert (on.text(1), end.finish_reason, end.completion_tokens) == ("", "deadline", 0)


def test_a_cancel_shows_what_was_held_back() -> None:
    on = bench()
    on.loop.submit(submit(1, "stopped", stop=("stops",)))
    on.step(3)
    on.loop.cancel(Cancel(1, "cancelled"))

    assert on.text(1) == "sto"


def test_a_cancel_leaves_the_other_answers_alone() -> None:
    on = bench(slots=2)
    on.loop.submit(submit(1, "first"))
    on.loop.submit(submit(2, "second"))
    on.step(3)
    on.loop.cancel(Cancel(1, "cancelled"))
    on.run()

    assert (on.text(2), on.finished(2).finish_reason) == ("second", "stop")


def test_a_cancel_of_a_job_that_has_ended_is_ignored() -> None:
    on = bench()
    on.run(submit(1, "hi"))
    emitted = len(on.emitted)
    on.loop.cancel(Cancel(1, "cancelled"))

    assert len(on.emitted) == emitted


def test_a_cancelled_prompts_slot_serves_the_next_one() -> None:
    on = bench()
    on.loop.submit(submit(1, "first"))
    on.step(2)
    on.loop.cancel(Cancel(1, "cancelled"))
    on.run(submit(2, "second"))

    assert on.text(2) == "second"


# Several slots


def test_several_prompts_each_get_their_own_whole_answer() -> None:
    on = bench(slots=4)
    said = {1: "one", 2: "two " * 20, 3: "drei 😀", 4: "quattro" * 30}
    on.run(*(submit(job, text.strip()) for job, text in said.items()))

    assert {job: on.text(job) for job in said} == {job: t.strip() for job, t in said.items()}


@given(
    st.lists(st.text("ab é😀", min_size=1, max_size=60).map(str.strip), min_size=1, max_size=8),
    st.integers(1, 4),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_whenever_prompts_come_every_one_is_answered_in_full(
    said: list[str], slots: int, data: st.DataObject
) -> None:
    on = bench(slots=slots)
    waiting = dict(enumerate(said))
    for job, text in waiting.items():
        on.loop.submit(submit(job, text))
        for _ in range(data.draw(st.integers(0, 5))):
            if not on.loop.idle:
                on.step()
    on.run()

    assert [on.text(job) for job in waiting] == said


def test_all_answers_advance_in_one_batch() -> None:
    on = bench(slots=3)
    for job in (1, 2, 3):
        on.loop.submit(submit(job, "hello"))
    on.step(2)

    assert sorted((chunk.sequence, len(chunk.tokens)) for chunk in on.batches[-1]) == [
        (0, 1),
        (1, 1),
        (2, 1),
    ]


def test_a_prompt_that_comes_later_takes_the_slot_that_is_free() -> None:
    on = bench(slots=2)
    on.run(submit(1, "long enough"), submit(2, "x"))
    on.run(submit(3, "third"))

    assert {chunk.sequence for chunk in on.batches[-1]} == {
        1
    }  # 0 keeps the beginning that they share


# Reading prompts in chunks


def test_the_first_prompt_is_read_in_small_chunks_until_a_speed_is_known() -> None:
    on = bench()
    on.loop.submit(submit(1, "x" * 100))
    on.step()

    assert [len(chunk.tokens) for chunk in on.batches[0]] == [FIRST_CHUNK_TOKENS]


def test_chunks_cover_a_prompt_once_and_in_order() -> None:
    on = bench(ctx=4096)
    on.run(submit(1, "x" * 2000, max_tokens=1))

    chunks = [chunk for batch in on.batches for chunk in batch]
    ends = [chunk.position + len(chunk.tokens) for chunk in chunks]
    assert ([0, *ends[:-1]], ends[-1]) == (
        [chunk.position for chunk in chunks],
        2000 + FORMAT_TOKENS,
    )


def test_only_the_last_chunk_of_a_prompt_asks_for_logits() -> None:
    on = bench(ctx=4096)
    on.run(submit(1, "x" * 2000, max_tokens=1))

    outputs = [chunk.outputs for batch in on.batches for chunk in batch]
    assert outputs == [0] * (len(outputs) - 1) + [1]


def test_no_batch_is_larger_than_the_engine_takes() -> None:
    on = bench(slots=3, ctx=4096)
    on.run(*(submit(job, "x" * 1500, max_tokens=20) for job in (1, 2, 3)))

    sizes = {sum(len(chunk.tokens) for chunk in batch) for batch in on.batches}
    assert max(sizes) <= on.engine.max_batch_tokens


def test_an_answer_goes_on_while_a_long_prompt_is_read() -> None:
    on = bench(slots=2, ctx=4096)
    on.loop.submit(submit(1, "hello"))
    on.step()
    on.loop.submit(submit(2, "x" * 1500))
    on.step(2)

    assert [sorted((c.sequence, c.outputs) for c in batch) for batch in on.batches[1:]] == [
        [(0, 1), (1, 0)]
    ] * 2


def test_an_answer_and_a_long_prompt_beside_it_both_come_out_whole() -> None:
    on = bench(slots=2, ctx=4096)
    on.loop.submit(submit(1, "hello"))
    on.step()
    on.run(submit(2, "x" * 1500))

    assert (on.text(1), on.text(2)) == ("hello", "x" * 1500)


def test_what_one_prompt_leaves_of_a_chunk_goes_to_the_next() -> None:
    on = bench(slots=2)
    on.loop.submit(submit(1, "x" * 20))
    on.loop.submit(submit(2, "y" * 100))
    on.step()

    assert [(c.sequence, len(c.tokens)) for c in on.batches[0]] == [
        (0, 20 + FORMAT_TOKENS),
        (1, FIRST_CHUNK_TOKENS - 20 - FORMAT_TOKENS),
    ]


# Seeds


def sampled(on: Bench, *seeds: int) -> list[str]:
    jobs = range(1, len(seeds) + 1)
    on.run(
        *(
            submit(job, "go", seed=seed, temperature=1.0, max_tokens=20)
            for job, seed in zip(jobs, seeds, strict=True)
        )
    )
    return [on.text(job) for job in jobs]


def test_the_same_seed_gives_the_same_text() -> None:
    assert sampled(bench(kind=Dice), 7) == sampled(bench(kind=Dice), 7)


def test_another_seed_gives_another_text() -> None:
    assert sampled(bench(kind=Dice), 7) != sampled(bench(kind=Dice), 8)


def test_a_seed_gives_the_same_text_whoever_else_is_answered() -> None:
    alone = sampled(bench(kind=Dice), 7)

    assert sampled(bench(slots=3, kind=Dice), 1, 7, 2)[1:2] == alone


# Failures


def test_a_failing_decode_refuses_all_that_were_in_the_batch() -> None:
    on = bench(slots=2, kind=Breaks)
    on.loop.submit(submit(1, "hello"))
    on.step(2)
    on.loop.submit(submit(2, "world"))
    on.engine.decoding = True  # type: ignore[attr-defined]
    on.step()

    assert {on.refused(job).code for job in (1, 2)} == {"engine_failed"}


def test_after_a_failing_decode_the_next_prompt_is_answered() -> None:
    on = bench(kind=Breaks)
    on.loop.submit(submit(1, "hello"))
    on.engine.decoding = True  # type: ignore[attr-defined]
    on.step()
    on.engine.decoding = False  # type: ignore[attr-defined]
    on.run(submit(2, "again"))

    assert on.text(2) == "again"


def test_an_output_that_is_no_number_refuses_its_prompt() -> None:
    on = bench(kind=Breaks)
    on.engine.sampling = True  # type: ignore[attr-defined]
    on.run(submit(1, "hello"))

    assert (on.refused(1).code, on.refused(1).error) == ("engine_failed", "no number")


# What the heartbeat reads


def test_between_steps_no_step_is_running() -> None:
    on = bench()
    before = on.loop.step_began_s
    on.run(submit(1, "hi"))

    assert (before, on.loop.step_began_s) == (None, None)


def test_while_the_engine_decodes_a_step_is_running() -> None:
    on = bench()
    seen: list[float | None] = []
    decode = on.engine.decode
    on.engine.decode = lambda batch: (seen.append(on.loop.step_began_s), decode(batch))  # type: ignore[assignment,func-returns-value]
    on.run(submit(1, "hi"))

    assert None not in seen


def test_after_a_failing_decode_no_step_is_running() -> None:
    on = bench(kind=Breaks)
    on.engine.decoding = True  # type: ignore[attr-defined]
    on.run(submit(1, "hi"))

    assert on.loop.step_began_s is None


def test_a_prediction_is_made_from_measured_speed_once_there_is_one() -> None:
    on = bench()
    on.loop.submit(submit(1, "x" * 100))
    on.step()
    first = on.loop.step_predicted_s
    on.step()

    assert (first, on.loop.step_predicted_s < FIRST_STEP_S) == (FIRST_STEP_S, True)


# Grammars


class Letters:
    """A grammar of letters only, wherever they stand."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.closed = 0

    def allows(self, token: int) -> bool:
        return chr(token).isalpha() or token >= 256

    def mask(self, logits: Logits) -> Logits:
        tokens = range(len(logits))
        return np.where([self.allows(token) for token in tokens], logits, -np.inf)

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def close(self) -> None:
        self.closed += 1


class Spells(Breaks):
    """Has grammars."""

    def grammar(self, text: str) -> Grammar:
        self.given = Letters()
        return self.given


class FakeGate:
    """Knows of a grammar what the test says, when the test says it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.verdicts: dict[str, str | None] = {}

    def ask(self, grammar: str) -> None:
        self.asked.append(grammar)

    def is_known(self, grammar: str) -> bool:
        return grammar in self.verdicts

    def refusal(self, grammar: str) -> str | None:
        return self.verdicts[grammar]


def test_a_grammar_is_tried_before_it_is_used() -> None:
    gate = FakeGate()
    on = bench(kind=Spells, gate=gate)
    on.run(submit(1, "hello", grammar="letters"))

    assert (set(gate.asked), on.loop.idle, on.emitted, on.batches) == ({"letters"}, True, [], [])


def test_a_prompt_whose_grammar_was_tried_is_answered() -> None:
    gate = FakeGate()
    on = bench(kind=Spells, gate=gate)
    on.run(submit(1, "hello", grammar="letters"))
    gate.verdicts["letters"] = None
    idle = on.loop.idle
    on.run()

    assert (idle, on.text(1)) == (False, "hello")


def test_others_do_not_wait_for_a_grammar_to_be_tried() -> None:
    on = bench(kind=Spells, gate=FakeGate())
    on.run(submit(1, "hello", grammar="letters", priority=9), submit(2, "world"))

    assert (on.ended, on.text(2)) == ([2], "world")


def test_a_grammar_that_is_refused_refuses_its_prompt_with_the_reason() -> None:
    gate = FakeGate()
    gate.verdicts["letters"] = "too many letters"
    on = bench(kind=Spells, gate=gate)
    on.run(submit(1, "hello", grammar="letters"))

    refusal = on.refused(1)
    assert (refusal.code, refusal.error, refusal.details) == (
        "invalid_request",
        "response_format: too many letters",
        {"field": "response_format"},
    )


def test_a_refused_grammar_takes_no_slot() -> None:
    gate = FakeGate()
    gate.verdicts["letters"] = "too many letters"
    on = bench(kind=Spells, gate=gate)
    on.run(submit(1, "hello", grammar="letters"), submit(2, "world"))

    assert on.text(2) == "world"


def test_an_engine_without_grammars_says_so() -> None:
    on = bench()
    on.run(submit(1, "hello", grammar="letters"))

    assert (on.refused(1).code, "echo" in on.refused(1).error) == ("invalid_request", True)


def test_an_answer_keeps_to_its_grammar() -> None:
    on = bench(kind=Spells)
    on.run(submit(1, "ab1cd", grammar="letters", max_tokens=3))

    assert on.text(1)[:2] == "ab"
    assert on.text(1).isalpha()


def test_a_grammar_hears_of_every_token_of_its_answer() -> None:
    on = bench(kind=Spells)
    on.run(submit(1, "hello", grammar="letters"))

    accepted = on.engine.given.accepted  # type: ignore[attr-defined]
    assert (bytes(accepted[:-1]), accepted[-1:]) == (b"hello", list(on.engine.chat.stop_ids))


def test_a_cancel_of_a_prompt_whose_grammar_is_tried_ends_it() -> None:
    gate = FakeGate()
    on = bench(kind=Spells, gate=gate)
    on.run(submit(1, "hello", grammar="letters"))
    on.loop.cancel(Cancel(1, "cancelled"))
    gate.verdicts["letters"] = None
    on.run()

    assert (on.ended, on.finished(1).finish_reason, on.batches) == ([1], "cancelled", [])


@pytest.mark.parametrize("end", ["by itself", "by a cancel", "by a failure"])
def test_a_grammar_gives_its_memory_back_once_however_its_answer_ends(end: str) -> None:
    on = bench(kind=Spells)
    on.loop.submit(submit(1, "hello", grammar="letters"))
    on.step(2)
    if end == "by a cancel":
        on.loop.cancel(Cancel(1, "cancelled"))
    on.engine.decoding = end == "by a failure"  # type: ignore[attr-defined]
    on.run()

    assert (on.ended, on.engine.given.closed) == ([1], 1)  # type: ignore[attr-defined]
