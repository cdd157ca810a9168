"""The straight line from a prompt to its one terminal message."""

import asyncio

import pytest

from edged.engine.frames import Cancel, Refused, Submit
from edged.errors import EngineFailed, OutOfMemory, Overheated
from edged.messages import Accepted, Delta, Done, Failed, Timings, Usage
from tests.pipeline_line import PATIENCE_S, Line, prompt

TRUNCATED = EngineFailed("the file is truncated", retryable=False)


# A prompt and its answer


async def test_a_prompt_is_accepted_at_once() -> None:
    assert Line().ask("a").messages == [Accepted("attic", "phi", 0, None)]


async def test_a_prompt_goes_to_a_free_slot_with_its_sampling() -> None:
    line = Line()
    line.ask("a")

    asked = prompt("a")
    assert line.engine.submitted == [
        Submit(1, asked.messages, asked.sampling, client=asked.client, priority=asked.priority)
    ]


async def test_pieces_of_the_engine_reach_the_requester() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hel", 1)

    assert requester.last == Delta("hel", 1)


async def test_an_answer_ends_in_one_done() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hel", 1)
    line.finish("a", "lo")

    done = requester.last
    assert (done.text, done.finish_reason, done.usage, done.seed) == (
        "hello",
        "stop",
        Usage(3, 1, 5),
        42,
    )


async def test_an_answer_says_how_fast_it_was() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hello", 1)
    line.finish("a")

    timings: Timings = requester.last.timings
    # Two tokens of the prompt in 0.5 s; four more after the first in 0.1 s.
    assert (timings.prefill_tokens_per_s, timings.decode_tokens_per_s) == (4.0, 40.0)
    assert timings.first_token_ms is not None
    assert timings.first_token_ms >= timings.queued_ms >= 0


async def test_an_answer_without_text_has_no_first_token() -> None:
    line = Line()
    requester = line.ask("a")
    line.finish("a")

    assert requester.last.timings.first_token_ms is None


async def test_tokens_are_counted_over_all_prompts() -> None:
    line = Line(slots=2)
    line.ask("a")
    line.ask("b")
    line.piece("a", "x", 3)
    line.piece("b", "y", 2)
    line.piece("a", "z", 4)

    assert line.pipeline.tokens == 6


async def test_what_the_engine_refuses_is_a_failure_with_its_numbers() -> None:
    line = Line()
    requester = line.ask("a")
    details = {"prompt_tokens": 70, "ctx": 64}
    line.pipeline.engine_frame(Refused(1, "prompt_too_long", "too long", details))

    assert requester.last == Failed("prompt_too_long", 413, "too long", False, None, details)


async def test_a_refusal_of_an_unknown_code_is_internal() -> None:
    line = Line()
    requester = line.ask("a")
    line.pipeline.engine_frame(Refused(1, "no_such_code", "strange", {}))

    assert requester.last.code == "internal"


async def test_a_slot_is_free_after_a_refusal() -> None:
    line = Line()
    line.ask("a")
    line.ask("b")
    line.pipeline.engine_frame(Refused(1, "prompt_too_long", "too long", {}))

    assert line.running == ["a", "b"]


async def test_frames_of_a_job_that_has_ended_are_ignored() -> None:
    line = Line()
    requester = line.ask("a")
    line.finish("a")
    line.piece("a", "late", 9)
    line.finish("a")

    assert [type(message) for message in requester.messages] == [Accepted, Done]


# The queue


async def test_no_more_prompts_run_than_there_are_slots() -> None:
    line = Line(slots=2)
    for name in "abc":
        line.ask(name)

    assert (line.running, line.pipeline.active, line.pipeline.queued) == (["a", "b"], 2, 1)


async def test_the_next_one_starts_when_one_has_ended() -> None:
    line = Line()
    line.ask("a")
    line.ask("b")
    line.finish("a")

    assert line.running == ["a", "b"]


async def test_higher_priorities_start_first() -> None:
    line = Line()
    line.ask("a")
    line.ask("low", priority=1)
    line.ask("high", priority=9)
    line.finish("a")

    assert line.running == ["a", "high"]


async def test_the_acceptance_says_the_place_in_the_queue() -> None:
    line = Line()
    line.ask("a")

    assert [line.ask(name).messages[0].position for name in "bcd"] == [0, 1, 2]


async def test_the_acceptance_says_when_it_may_start_once_that_is_known() -> None:
    line = Line()
    unknown = line.ask("a").messages[0].eta_s
    line.finish("a")
    now, later = (line.ask(name).messages[0].eta_s for name in "bc")

    assert (unknown, now) == (None, 0)
    assert later >= 0


async def test_a_full_queue_refuses_with_the_numbers() -> None:
    line = Line(max_prompts=1)
    line.ask("a")
    line.ask("b")
    refusal = line.ask("c").last

    assert (refusal.code, refusal.retryable, refusal.details) == (
        "queue_full",
        True,
        {"queued": 1, "limit": 1},
    )


async def test_a_refused_prompt_can_be_asked_again_with_its_id() -> None:
    line = Line(max_prompts=1)
    line.ask("a")
    line.ask("b")
    line.ask("c")
    line.finish("a")

    assert isinstance(line.ask("c").last, Accepted)


# Cancelling


async def test_cancelling_a_prompt_that_waits_fails_it() -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b")

    assert line.pipeline.cancel("kitchen", "b")
    assert requester.last.code == "cancelled"


async def test_a_cancelled_prompt_never_starts() -> None:
    line = Line()
    line.ask("a")
    line.ask("b")
    line.pipeline.cancel("kitchen", "b")
    line.finish("a")

    assert line.running == ["a"]


async def test_cancelling_a_prompt_that_runs_asks_the_engine() -> None:
    line = Line()
    line.ask("a")

    assert line.pipeline.cancel("kitchen", "a")
    assert line.engine.cancelled == [Cancel(1, "cancelled")]


async def test_a_prompt_cancelled_while_running_ends_with_its_partial_text() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hel", 3)
    line.pipeline.cancel("kitchen", "a")
    line.finish("a", reason="cancelled")

    assert (requester.last.text, requester.last.finish_reason) == ("hel", "cancelled")


@pytest.mark.parametrize(("client", "prompt_id"), [("bedroom", "a"), ("kitchen", "b")])
async def test_only_a_prompt_of_ones_own_can_be_cancelled(client: str, prompt_id: str) -> None:
    line = Line()
    line.ask("a")

    assert not line.pipeline.cancel(client, prompt_id)
    assert line.engine.cancelled == []


async def test_an_answer_that_has_ended_cannot_be_cancelled() -> None:
    line = Line()
    line.ask("a")
    line.finish("a")

    assert not line.pipeline.cancel("kitchen", "a")


# Deadlines


async def test_a_prompt_whose_turn_does_not_come_in_time_expires() -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b", deadline_s=0.01)

    assert (await requester.hears(Failed)).code == "expired"


async def test_an_expired_prompt_never_starts() -> None:
    line = Line()
    line.ask("a")
    await line.ask("b", deadline_s=0.01).hears(Failed)
    line.finish("a")

    assert line.running == ["a"]


async def test_a_prompt_that_runs_past_its_deadline_is_stopped() -> None:
    line = Line()
    line.ask("a", deadline_s=0)
    await line.ask("b", deadline_s=0.01).hears(Failed)  # comes after the deadline of "a"

    assert line.engine.cancelled == [Cancel(1, "deadline")]


async def test_an_answer_in_time_is_not_stopped_afterwards() -> None:
    line = Line()
    line.ask("a", deadline_s=0)
    line.finish("a")
    line.ask("b")
    await line.ask("c", deadline_s=0.01).hears(Failed)

    assert line.engine.cancelled == []


async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    line = Line()
    line.ask("a")
    await asyncio.sleep(0.02)  # what a prompt takes
    line.finish("a")
    line.ask("b")
    refusal = line.ask("c", deadline_s=0.001).last

    assert (refusal.code, refusal.details["deadline_s"]) == ("expired", 0.001)
    assert refusal.details["eta_s"] == refusal.retry_after_s > 0.001
    assert line.pipeline.queued == 0


async def test_a_deadline_that_can_be_met_is_taken() -> None:
    line = Line()
    line.ask("a")
    line.finish("a")
    line.ask("b")

    assert isinstance(line.ask("c", deadline_s=60).last, Accepted)


async def test_a_prompt_refused_for_its_deadline_can_be_asked_again() -> None:
    line = Line()
    line.ask("a")
    await asyncio.sleep(0.02)  # what a prompt takes
    line.finish("a")
    line.ask("b")
    line.ask("c", deadline_s=0.001)

    assert isinstance(line.ask("c", deadline_s=60, digest=b"other").last, Accepted)


# The model


async def test_an_assertion_of_the_model_served_is_taken() -> None:
    assert isinstance(Line().ask("a", model="phi").last, Accepted)


async def test_an_assertion_of_another_model_is_refused_with_both_names() -> None:
    refusal = Line().ask("a", model="llama").last

    assert (refusal.code, refusal.details) == (
        "unknown_model",
        {"requested": "llama", "served": "phi"},
    )


async def test_an_assertion_is_checked_when_the_model_is_known() -> None:
    line = Line()
    line.lose_worker()
    requester = line.ask("a", model="llama")
    line.load()

    assert (requester.last.code, line.running) == ("unknown_model", [])


async def test_prompts_that_come_while_the_model_loads_wait_for_it() -> None:
    line = Line()
    line.lose_worker()
    requester = line.ask("a")
    before = list(line.running)
    line.load()

    assert (requester.messages[0].model, before, line.running) == (None, [], ["a"])


async def test_when_the_model_is_loaded_every_slot_gets_a_prompt() -> None:
    line = Line()
    line.lose_worker()
    for name in "abc":
        line.ask(name)
    line.load(slots=2)

    assert line.running == ["a", "b"]


async def test_a_refused_model_fails_those_who_wait_for_good() -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b")
    line.refuse_model(TRUNCATED)

    assert (requester.last.code, requester.last.retryable) == ("engine_failed", False)
    assert "truncated" in requester.last.error


async def test_a_refused_model_refuses_prompts_that_come_later() -> None:
    line = Line()
    line.refuse_model(TRUNCATED)
    refusal = line.ask("a").last

    assert (refusal.code, refusal.retryable, "truncated" in refusal.error) == (
        "engine_failed",
        False,
        True,
    )


async def test_missing_memory_is_answered_with_the_numbers_and_a_hint() -> None:
    line = Line()
    numbers = {"needed": 3, "available": 2}
    line.refuse_model(OutOfMemory("too little", retry_after_s=30, details=numbers))
    refusal = line.ask("a").last

    assert (refusal.code, refusal.status, refusal.retryable) == ("out_of_memory", 507, True)
    assert (refusal.retry_after_s, refusal.details) == (30, numbers)


async def test_idleness_comes_with_the_last_answer() -> None:
    line = Line(slots=2)
    line.ask("a")
    line.ask("b")
    idle = asyncio.create_task(line.pipeline.wait_until_idle())
    line.finish("a")
    await asyncio.sleep(0.01)
    assert not idle.done()
    line.finish("b")
    await asyncio.wait_for(idle, PATIENCE_S)


# Every outcome


async def test_every_prompt_gets_one_terminal_message() -> None:
    line = Line(slots=2, max_prompts=2)
    asked = {name: line.ask(name) for name in "abcdef"}
    line.finish("a", "x")
    line.pipeline.cancel("kitchen", "c")
    line.pipeline.engine_frame(Refused(line.job("b"), "engine_failed", "x", {}))
    line.lose_worker()
    line.load()
    line.pipeline.sleep(Overheated("too hot"))

    assert {name: [end.type for end in who.ends] for name, who in asked.items()} == {
        "a": ["done"],
        **{name: ["failed"] for name in "bcdef"},
    }


async def test_nothing_is_left_behind_when_all_are_answered() -> None:
    line = Line(slots=2)
    for name in "abc":
        line.ask(name, deadline_s=60)
    for name in "abc":
        line.finish(name)

    assert (line.pipeline.active, line.pipeline.queued, line.pipeline._jobs) == (0, 0, {})
