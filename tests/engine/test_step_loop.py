"""The hot loop over the echo engine: slots, chunks, cancels and ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.echo import EchoEngine
from edged.engine.frames import Cancel, Finished, Load, Piece, Refused, Submit, Up
from edged.engine.protocol import BatchChunk, Logits, Picker
from edged.engine.step_loop import FIRST_CHUNK_TOKENS, FIRST_STEP_S, StepLoop
from edged.errors import EngineFailed
from edged.messages import ChatMessage, Sampling

# <s> <|user|> … <|end|> <|assistant|>
FORMAT_TOKENS = 4


def submit(job: int, text: str, **sampling: Any) -> Submit:
    wanted = {
        "max_tokens": 2000,
        "temperature": 0,
        "top_k": 0,
        "top_p": 1,
        "min_p": 0,
        "repeat_penalty": 1,
        "seed": 1,
    } | sampling
    return Submit(job, (ChatMessage("user", text),), Sampling(**wanted))


class Dice(EchoEngine):
    """Every letter as likely as the next, so that the seed alone decides."""

    def sample(self, slot: int, picker: Picker) -> int:
        logits: Logits = np.full(261, -np.inf, dtype=np.float32)
        logits[ord("a") : ord("z") + 1] = 0
        return picker.pick(logits)


class Breaks(EchoEngine):
    """Fails as native code does: in ``decode`` or in ``sample``, once it is told to."""

    decoding = sampling = False

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        if self.decoding:
            raise EngineFailed("decode returned -3")
        super().decode(batch)

    def sample(self, slot: int, picker: Picker) -> int:
        if self.sampling:
            raise EngineFailed("no number")
        return super().sample(slot, picker)


@dataclass
class Bench:
    """A step loop, what it emitted, and the batches that its engine saw."""

    engine: EchoEngine
    emitted: list[Up] = field(default_factory=list)
    batches: list[list[BatchChunk]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loop = StepLoop(self.engine, self.emitted.append)
        decode = self.engine.decode

        def watched(batch: Sequence[BatchChunk]) -> None:
            self.batches.append(list(batch))
            decode(batch)

        self.engine.decode = watched  # type: ignore[method-assign]

    def run(self, *commands: Submit) -> None:
        """Take the commands, then step until there is nothing left to do."""
        for command in commands:
            self.loop.submit(command)
        for _ in range(10_000):
            if self.loop.idle:
                return
            self.loop.step()
        pytest.fail("the loop does not come to an end")

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.step()

    def text(self, job: int) -> str:
        """All of a job's text, from its pieces and its end."""
        return "".join(
            frame.text
            for frame in self.emitted
            if isinstance(frame, Piece | Finished) and frame.job == job
        )

    def finished(self, job: int) -> Finished:
        (frame,) = (f for f in self.emitted if isinstance(f, Finished) and f.job == job)
        return frame

    def refused(self, job: int) -> Refused:
        (frame,) = (f for f in self.emitted if isinstance(f, Refused) and f.job == job)
        return frame


def bench(slots: int = 1, ctx: int | None = None, kind: type[EchoEngine] = EchoEngine) -> Bench:
    return Bench(kind(Load("echo", None, "", ctx, slots, 1, 0)))


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
        while len(on.loop._slots) == slots:
            on.step()
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
    on.step(4)

    assert sorted((chunk.slot, len(chunk.tokens)) for chunk in on.batches[-1]) == [
        (0, 1),
        (1, 1),
        (2, 1),
    ]


def test_a_prompt_that_comes_later_takes_the_slot_that_is_free() -> None:
    on = bench(slots=2)
    on.run(submit(1, "long enough"), submit(2, "x"))
    on.run(submit(3, "third"))

    assert {chunk.slot for chunk in on.batches[-1]} == {0}


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

    wants = [chunk.wants_logits for batch in on.batches for chunk in batch]
    assert wants == [False] * (len(wants) - 1) + [True]


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

    assert [sorted((c.slot, c.wants_logits) for c in batch) for batch in on.batches[1:]] == [
        [(0, True), (1, False)]
    ] * 2


def test_an_answer_and_a_long_prompt_beside_it_both_come_out_whole() -> None:
    on = bench(slots=2, ctx=4096)
    on.loop.submit(submit(1, "hello"))
    on.step()
    on.run(submit(2, "x" * 1500))

    assert (on.text(1), on.text(2)) == ("hello", "x" * 1500)


def test_prompts_are_read_one_after_the_other() -> None:
    on = bench(slots=2)
    on.run(submit(1, "x" * 100, max_tokens=1), submit(2, "y" * 100, max_tokens=1))

    readers = [[c.slot for c in batch if len(c.tokens) > 1] for batch in on.batches]
    assert all(len(slots) <= 1 for slots in readers)


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
