"""The straight line from a prompt to its one terminal message."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from edged.engine.frames import Cancel, Finished, Piece, Ready, Refused, Submit
from edged.engine.handle import ModelState
from edged.errors import EngineFailed, OutOfMemory, Overheated, PromptFailure
from edged.messages import (
    Accepted,
    ChatMessage,
    Delta,
    Done,
    Failed,
    FinishReason,
    Prompt,
    Reply,
    Sampling,
    Timings,
    Usage,
    Waiting,
)
from edged.pipeline import Pipeline

TRUNCATED = EngineFailed("the file is truncated", retryable=False)
READY = Ready("fake", "phi", "Q4_0", 4096, 1, 0.1, 0, 0)
PATIENCE_S = 5.0


class FakeEngine:
    """The handle as the pipeline sees it; the test says what comes up."""

    def __init__(self) -> None:
        self.ready: Ready | None = READY
        self.state = ModelState.SERVING
        self.reason: str | None = None
        self.refusal: PromptFailure | None = None
        self.submitted: list[Submit] = []
        self.cancelled: list[Cancel] = []

    def submit(self, command: Submit) -> None:
        self.submitted.append(command)

    def cancel(self, command: Cancel) -> None:
        self.cancelled.append(command)


class Requester:
    """Hears the replies to its prompts."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self._more = asyncio.Event()

    def __call__(self, reply: Reply) -> None:
        self.replies.append(reply)
        self._more.set()

    async def hears(self, kind: type) -> Any:
        """Wait for a message of this kind."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for message in self.messages:
                    if isinstance(message, kind):
                        return message
                self._more.clear()
                await self._more.wait()

    @property
    def messages(self) -> list[Any]:
        return [reply.message for reply in self.replies]

    @property
    def last(self) -> Any:
        return self.messages[-1]


class Line:
    """A pipeline between requesters and an engine."""

    def __init__(self, slots: int = 1, max_prompts: int = 10) -> None:
        self.engine = FakeEngine()
        self.engine.ready = replace(READY, slots=slots)
        self.pipeline = Pipeline("attic", self.engine, max_prompts)  # type: ignore[arg-type]

    def ask(self, name: str, to: Requester | None = None, **changes: Any) -> Requester:
        requester = to or Requester()
        self.pipeline.submit(prompt(name, **changes), requester)
        return requester

    def job(self, name: str) -> int:
        """The number under which the engine got a prompt."""
        (number,) = (s.job for s in self.engine.submitted if s.messages[0].content == name)
        return number

    def finish(self, name: str, text: str = "", reason: FinishReason = "stop") -> None:
        end = Finished(self.job(name), text, reason, 3, 1, 5, 0.5, 0.1)
        self.pipeline.engine_frame(end)

    def piece(self, name: str, text: str, n: int) -> None:
        self.pipeline.engine_frame(Piece(self.job(name), text, n, 0.0))

    def lose_worker(self, reason: str = "it was ended by SIGKILL") -> None:
        """What the handle does when its worker is gone."""
        self.engine.ready = None
        self.engine.state = ModelState.LOADING
        self.engine.reason = reason
        self.pipeline.engine_lost(reason)

    def refuse_model(self, failure: PromptFailure) -> None:
        """What the handle does when there is nothing that could be loaded."""
        self.lose_worker(failure.error)
        self.engine.state = ModelState.REFUSED
        self.engine.refusal = failure
        self.pipeline.engine_refused(failure)

    def load(self, **changes: Any) -> None:
        """What the handle does when a worker is ready."""
        self.engine.ready = replace(READY, **changes)
        self.engine.state = ModelState.SERVING
        self.pipeline.engine_ready(self.engine.ready)

    def unload(self) -> None:
        """What the handle does when its worker was ended to give memory back."""
        self.engine.ready = None
        self.engine.state = ModelState.UNLOADED
        self.pipeline.engine_unloaded()

    @property
    def running(self) -> list[str]:
        return [submitted.messages[0].content for submitted in self.engine.submitted]


def prompt(name: str, **changes: Any) -> Prompt:
    return replace(
        Prompt(
            id=name,
            client="kitchen",
            messages=(ChatMessage("user", name),),
            sampling=Sampling(9, 0, 0, 1, 0, 1, seed=42),
            digest=name.encode(),
        ),
        **changes,
    )


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


# Asking again


async def test_the_same_prompt_again_repeats_the_acceptance_and_runs_once() -> None:
    line = Line()
    requester = line.ask("a")
    line.ask("a", to=requester)

    assert (requester.replies[0], line.running) == (requester.replies[1], ["a"])


async def test_the_same_id_with_another_body_is_a_conflict() -> None:
    line = Line()
    line.ask("a")

    assert line.ask("a", digest=b"other").last.code == "duplicate_conflict"


async def test_a_conflict_leaves_the_first_one_running() -> None:
    line = Line()
    requester = line.ask("a")
    line.ask("a", digest=b"other")
    line.finish("a", "hello")

    assert requester.last.text == "hello"


async def test_the_same_id_of_two_clients_is_two_prompts() -> None:
    line = Line(slots=2)
    line.ask("a", client="kitchen")
    line.ask("a", client="bedroom", digest=b"other")

    assert line.running == ["a", "a"]


async def test_an_id_is_free_again_after_its_answer() -> None:
    line = Line()
    line.ask("a")
    line.finish("a")

    assert isinstance(line.ask("a", digest=b"other").last, Accepted)


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


async def test_a_lost_worker_fails_what_it_was_answering() -> None:
    line = Line()
    requester = line.ask("a")
    line.lose_worker("it was ended by SIGKILL")

    assert (requester.last.code, requester.last.retryable) == ("engine_failed", True)
    assert "SIGKILL" in requester.last.error


async def test_a_lost_worker_leaves_those_who_wait() -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b")
    line.lose_worker()
    line.load()
    line.finish("b", "hello")

    assert requester.last.text == "hello"


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


# Signs of life


async def test_who_waits_hears_so_now_and_then() -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b")
    living = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.03))
    waiting = await requester.hears(Waiting)
    living.cancel()

    assert waiting.reason == "1 prompts are being answered, 1 wait"


@pytest.mark.parametrize(
    ("pieces", "reason"), [([], "the prompt is being read"), (["x"], "still answering")]
)
async def test_who_is_being_answered_hears_how_far_it_is(pieces: list[str], reason: str) -> None:
    line = Line()
    requester = line.ask("a")
    for piece in pieces:
        line.piece("a", piece, 1)
    living = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.03))
    waiting = await requester.hears(Waiting)
    living.cancel()

    assert waiting.reason == reason


async def test_who_waits_for_the_model_hears_why() -> None:
    line = Line()
    line.lose_worker("the last worker was ended by SIGKILL")
    requester = line.ask("a")
    living = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.03))
    waiting = await requester.hears(Waiting)
    living.cancel()

    assert "SIGKILL" in waiting.reason


# Stopping


async def test_draining_ends_every_prompt() -> None:
    line = Line()
    requesters = [line.ask("a"), line.ask("b")]
    line.pipeline.drain()

    assert [(r.last.code, r.last.retryable) for r in requesters] == [("draining", True)] * 2


async def test_draining_refuses_what_comes_later() -> None:
    line = Line()
    line.pipeline.drain()

    assert line.ask("a").last.code == "draining"


async def test_what_the_engine_still_says_while_draining_is_ignored() -> None:
    line = Line()
    requester = line.ask("a")
    line.pipeline.drain()
    line.finish("a", "late")

    assert isinstance(requester.last, Failed)


# Every outcome


async def test_every_prompt_gets_one_terminal_message() -> None:
    line = Line(slots=2, max_prompts=2)
    asked = {name: line.ask(name) for name in "abcdef"}
    line.finish("a", "x")
    line.pipeline.cancel("kitchen", "c")
    line.pipeline.engine_frame(Refused(line.job("b"), "engine_failed", "x", {}))
    line.lose_worker()
    line.pipeline.drain()
    terminals = {
        name: [m.type for m in requester.messages if isinstance(m, Done | Failed)]
        for name, requester in asked.items()
    }

    assert {name: len(found) for name, found in terminals.items()} == dict.fromkeys("abcdef", 1)


async def test_nothing_is_left_behind_when_all_are_answered() -> None:
    line = Line(slots=2)
    for name in "abc":
        line.ask(name, deadline_s=60)
    for name in "abc":
        line.finish(name)

    assert (line.pipeline.active, line.pipeline.queued, line.pipeline._jobs) == (0, 0, {})


# A board that is short of memory, or hot


async def test_what_was_being_answered_is_answered_anew_after_an_unloading() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.unload()
    line.engine.submitted.clear()
    line.load()
    line.piece("a", "hel", 1)
    line.finish("a", "lo")

    assert requester.last.text == "hello"


async def test_a_stream_that_begins_again_counts_its_restarts_and_from_zero() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.unload()
    line.engine.submitted.clear()
    line.load()
    line.piece("a", "hel", 1)

    assert [(reply.restarts, reply.seq) for reply in requester.replies] == [(0, 0), (0, 1), (1, 0)]


async def test_who_was_being_answered_comes_before_those_who_waited() -> None:
    line = Line(slots=2)
    for name in "abc":
        line.ask(name)
    line.unload()
    line.engine.submitted.clear()
    line.load(slots=3)

    assert line.running == ["a", "b", "c"]


async def test_a_prompt_for_an_unloaded_model_waits() -> None:
    line = Line()
    line.unload()
    requester = line.ask("a")

    assert isinstance(requester.last, Accepted)
    assert line.pipeline.queued == 1


async def test_an_overheated_board_ends_what_it_was_answering() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.pipeline.sleep(Overheated("too hot", retry_after_s=60))

    assert (requester.last.code, requester.last.retry_after_s) == ("overheated", 60)
    assert line.engine.cancelled == [Cancel(1, "cancelled")]


async def test_an_overheated_board_keeps_those_who_wait() -> None:
    line = Line()
    line.ask("a")
    waiting = line.ask("b")
    line.pipeline.sleep(Overheated("too hot"))
    running = line.running
    line.pipeline.wake()

    assert isinstance(waiting.last, Accepted)
    assert (running, line.running) == (["a"], ["a", "b"])


async def test_those_who_wait_are_told_level_and_reason() -> None:
    line = Line()
    requester = line.ask("a")
    line.pipeline.tell_level("throttled", "held below 80 °C")
    task = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.01))
    waiting = await requester.hears(Waiting)
    task.cancel()

    assert (waiting.level, waiting.reason) == ("throttled", "held below 80 °C")


async def test_who_is_being_answered_hears_of_a_pause_once() -> None:
    line = Line()
    requester = line.ask("a")
    for _ in range(2):
        line.pipeline.tell_level("paused", "far above its limit")

    assert requester.messages[1:] == [Waiting("paused", "far above its limit", None)]


async def test_who_wants_no_stream_hears_nothing_of_a_pause() -> None:
    line = Line()
    requester = line.ask("a", stream=False)
    line.pipeline.tell_level("paused", "far above its limit")

    assert [type(message) for message in requester.messages] == [Accepted]


async def test_a_slower_pace_makes_waiting_times_longer() -> None:
    line = Line()
    line.ask("a")
    line.finish("a")
    line.ask("b")
    line.pipeline.speed = 1.0
    usual_s = line.ask("c").last.eta_s
    line.pipeline.speed = 0.5
    slow_s = line.ask("d").last.eta_s

    assert slow_s == pytest.approx(2 * usual_s * 2, rel=0.01)
