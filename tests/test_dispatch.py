"""Whose turn it is, and who runs again when the worker is gone."""

import asyncio
from typing import Any

import pytest

from edged.engine.frames import Cancel, Refused
from edged.messages import Accepted, SessionUse
from edged.settings import QueueSettings, SessionSettings
from tests.instant_spool import InstantSpool
from tests.pipeline_line import Line, Requester

TOO_LONG = "prompt_too_long"


# A worker that dies


async def test_what_was_being_answered_is_answered_anew_by_the_next_worker() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.lose_worker()
    line.load()
    line.piece("a", "hel", 1)
    line.finish("a", "lo")

    assert [end.text for end in requester.ends] == ["hello"]


async def test_a_stream_that_begins_again_counts_its_restarts_and_from_zero() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.lose_worker()
    line.load()
    line.piece("a", "hel", 1)

    assert requester.numbers == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [type(requester.messages[index]) for index in (0, 2)] == [Accepted, Accepted]


async def test_those_who_were_being_answered_run_again_one_at_a_time() -> None:
    line = Line(slots=2)
    for name in "abc":
        line.ask(name)
    line.lose_worker()
    line.load(slots=2)
    first = list(line.running)
    line.finish("a")
    second = list(line.running)
    line.finish("b")

    assert (first, second, line.running) == (["a"], ["a", "b"], ["a", "b", "c"])


async def test_nobody_starts_beside_one_that_the_worker_may_have_died_of() -> None:
    line = Line(slots=2)
    line.ask("a")
    line.lose_worker()
    line.load(slots=2)
    line.ask("b")

    assert line.running == ["a"]


async def test_a_prompt_under_which_two_workers_die_has_failed_for_good() -> None:
    line = Line()
    requester = line.ask("a")
    for _ in range(2):
        line.load()
        line.lose_worker("it was ended by SIGSEGV")

    (end,) = requester.ends
    assert (end.code, end.retryable, end.details) == ("engine_failed", False, {"deaths": 2})
    assert "SIGSEGV" in end.error


async def test_a_death_beside_others_counts_against_nobody() -> None:
    line = Line(slots=2)
    requesters = [line.ask("a"), line.ask("b")]
    line.lose_worker()
    line.load(slots=2)
    line.lose_worker()  # "a" was alone
    line.load(slots=2)
    line.finish("a")
    line.lose_worker()  # "b" was alone
    line.load(slots=2)
    line.finish("b")

    assert [end.type for requester in requesters for end in requester.ends] == ["done", "done"]


async def test_only_the_guilty_one_fails() -> None:
    line = Line(slots=3)
    asked = {name: line.ask(name) for name in ("a", "bad", "c")}
    for _ in range(20):
        line.load(slots=3)
        while line.engine.ready and line.pipeline.active:
            running = [name for name in line.running if not asked[name].ends]
            if "bad" in running:
                line.lose_worker()
            else:
                line.finish(running[0], "hello")

    assert {name: [end.type for end in who.ends] for name, who in asked.items()} == {
        "a": ["done"],
        "bad": ["failed"],
        "c": ["done"],
    }


async def test_those_who_wait_come_after_those_who_were_being_answered() -> None:
    line = Line()
    line.ask("a")
    line.ask("b", priority=9)
    line.lose_worker()
    line.load()

    assert line.running == ["a"]


async def test_a_lost_worker_leaves_those_who_wait() -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b")
    line.lose_worker()
    line.load()
    line.finish("a")
    line.finish("b", "hello")

    assert requester.numbers[0] == (0, 0)
    assert requester.last.text == "hello"


async def test_a_prompt_that_was_to_stop_ends_with_its_worker() -> None:
    line = Line()
    requester = line.ask("a")
    line.pipeline.cancel("kitchen", "a")
    line.lose_worker()

    assert [end.code for end in requester.ends] == ["cancelled"]


async def test_a_prompt_past_its_deadline_ends_with_its_worker() -> None:
    line = Line()
    requester = line.ask("a", deadline_s=0)
    await asyncio.sleep(0.01)  # until it has passed
    line.lose_worker()

    assert [end.code for end in requester.ends] == ["expired"]


async def test_deaths_and_restarts_are_kept_on_disk() -> None:
    line = Line()
    line.ask("a")
    line.lose_worker()
    row = line.spool.rows["kitchen", "a"]

    assert (row.restarts, row.deaths) == (1, 1)


async def test_deaths_count_over_a_restart_of_the_daemon() -> None:
    line = Line()
    line.ask("a")
    line.lose_worker()
    next_line = Line(spool=line.spool)
    next_line.load()
    next_line.lose_worker()

    assert [end.code for end in next_line.away.ends] == ["engine_failed"]


async def test_a_worker_lost_before_the_acceptance_is_on_disk_changes_its_restarts() -> None:
    line = Line()
    line.spool.is_slow = True
    requester = line.ask("a")
    line.lose_worker()
    line.spool.commit()

    assert requester.numbers == [(1, 0)]
    assert line.spool.rows["kitchen", "a"].restarts == 1


# A worker that was ended for a while


async def test_an_unloading_is_nobodys_fault() -> None:
    line = Line(slots=2)
    for name in "ab":
        line.ask(name)
    line.unload()
    line.load(slots=2)

    assert line.running == ["a", "b"]
    assert line.spool.rows["kitchen", "a"].deaths == 0


async def test_who_was_being_answered_comes_before_those_who_waited() -> None:
    line = Line(slots=2)
    for name in "abc":
        line.ask(name)
    line.unload()
    line.load(slots=3)

    assert line.running == ["a", "b", "c"]


async def test_an_unloading_begins_the_stream_again() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.unload()
    line.load()
    line.piece("a", "hel", 1)
    line.finish("a", "lo")

    assert (requester.numbers[-1], requester.last.text) == ((1, 3), "hello")


# Clients


async def test_clients_of_equal_priority_take_turns() -> None:
    line = Line(max_prompts=20)
    for number in range(4):
        line.ask(f"a{number}", client="a")
    for number in range(2):
        line.ask(f"b{number}", client="b")
    for name in ("a0", "b0", "a1", "b1", "a2"):
        line.finish(name)

    assert line.running == ["a0", "b0", "a1", "b1", "a2", "a3"]


async def test_a_client_is_answered_no_more_prompts_at_once_than_allowed() -> None:
    line = Line(slots=3, client_active=1)
    line.ask("a", client="greedy")
    line.ask("b", client="greedy")
    line.ask("c", client="modest")

    assert line.running == ["a", "c"]


async def test_a_clients_next_prompt_starts_when_one_has_ended() -> None:
    line = Line(slots=3, client_active=1)
    for name in "ab":
        line.ask(name)
    line.finish("a")

    assert line.running == ["a", "b"]


async def test_a_client_that_queues_too_many_is_refused_and_others_are_not() -> None:
    line = Line(client_queued=1)
    for name in "ab":
        line.ask(name, client="greedy")
    refusal = line.ask("c", client="greedy").last

    assert (refusal.code, refusal.retryable) == ("client_quota", True)
    assert refusal.details == {"queued": 1, "limit": 1}
    assert isinstance(line.ask("d", client="modest").last, Accepted)


async def test_tokens_read_and_generated_count_against_a_clients_quota() -> None:
    line = Line(client_tokens_per_min=7)
    line.ask("a")
    line.finish("a")  # reads 2 tokens that were not cached, generates 5
    refusal = line.ask("b").last

    assert (refusal.code, refusal.details) == ("client_quota", {"tokens": 7, "limit": 7})
    assert 0 < refusal.retry_after_s <= 60


async def test_a_client_below_its_quota_is_taken() -> None:
    line = Line(client_tokens_per_min=8)
    line.ask("a")
    line.finish("a")

    assert isinstance(line.ask("b").last, Accepted)


async def test_limits_that_are_set_anew_hold_from_then_on() -> None:
    line = Line(slots=3, client_active=1)
    for name in "abc":
        line.ask(name)
    line.pipeline.limit(QueueSettings(max_prompts=1, client_active=2))
    refusal = line.ask("d")
    line.piece("a", "x", 1)

    assert (line.running, refusal.last.code) == (["a", "b"], "queue_full")


# Conversations


def contents(line: Line) -> list[str]:
    """What the engine was last given to go on from."""
    return [message.content for message in line.engine.submitted[-1].messages]


async def test_a_conversation_goes_on_from_what_was_said() -> None:
    line = Line()
    line.ask("my name is Ada", session="s")
    line.finish("my name is Ada", "hello Ada")
    line.ask("who am I?", session="s")

    assert contents(line) == ["my name is Ada", "hello Ada", "who am I?"]


async def test_an_answer_says_what_the_conversation_holds() -> None:
    line = Line()
    first = line.ask("a", session="s")
    line.finish("a")
    second = line.ask("b", session="s")
    line.finish("b")

    assert [each.last.session for each in (first, second)] == [
        SessionUse(turns=1, left=0),
        SessionUse(turns=2, left=0),
    ]


async def test_without_a_session_nothing_is_said_of_one() -> None:
    line = Line()
    requester = line.ask("a")
    line.finish("a")

    assert requester.last.session is None
    assert line.spool.said == {}


async def test_a_session_belongs_to_its_client() -> None:
    line = Line()
    line.ask("a", session="s", client="kitchen")
    line.finish("a")
    line.ask("b", session="s", client="bedroom")

    assert contents(line) == ["b"]


async def test_in_a_conversation_the_answer_before_comes_first() -> None:
    line = Line(slots=2)
    line.ask("a", session="s")
    line.ask("b", session="s")
    line.ask("c")

    assert line.running == ["a", "c"]


async def test_a_conversation_goes_on_once_its_last_turn_is_on_disk() -> None:
    line = Line()
    line.ask("a", session="s")
    line.ask("b", session="s")
    line.spool.is_slow = True
    line.finish("a", "hello")
    before = list(line.running)
    line.spool.commit()

    assert before == ["a"]
    assert contents(line) == ["a", "hello", "b"]


async def test_a_reset_begins_a_conversation_anew() -> None:
    line = Line()
    line.ask("a", session="s")
    line.finish("a")
    requester = line.ask("b", session="s", session_reset=True)
    before = contents(line)
    line.finish("b")
    line.ask("c", session="s")

    assert (before, contents(line)) == (["b"], ["b", "", "c"])
    assert requester.last.session == SessionUse(turns=1, left=1)


async def test_a_conversation_that_is_too_long_for_the_context_loses_its_oldest_turns() -> None:
    line = Line()
    for name in "abc":
        line.ask(name, session="s")
        line.finish(name)
    requester = line.ask("d", session="s")
    # Each turn is 3 + 5 tokens at first, and what is asked here is 3 too many.
    details: dict[str, Any] = {"prompt_tokens": 66, "ctx": 64}
    line.pipeline.engine_frame(Refused(line.job("d"), TOO_LONG, "too long", details))
    shorter = contents(line)
    line.finish("d")

    assert "a" not in shorter
    assert shorter[-1] == "d"
    assert requester.last.session.left >= 1
    assert [end.type for end in requester.ends] == ["done"]


async def test_a_prompt_that_is_too_long_without_any_turn_fails() -> None:
    line = Line()
    line.ask("a", session="s")
    line.finish("a")
    requester = line.ask("b", session="s")
    for _ in range(2):
        line.pipeline.engine_frame(Refused(line.job("b"), TOO_LONG, "too long", {}))

    assert [end.code for end in requester.ends] == [TOO_LONG]


async def test_a_failed_prompt_adds_nothing_to_its_conversation() -> None:
    line = Line()
    line.ask("a", session="s")
    line.pipeline.engine_frame(Refused(line.job("a"), "engine_failed", "x", {}))

    assert line.spool.said == {}


@pytest.mark.parametrize("max_turns", [1, 2, 3])
async def test_a_conversation_keeps_no_more_turns_than_set(max_turns: int) -> None:
    line = Line(spool=InstantSpool(SessionSettings(max_turns=max_turns)))
    requester = Requester()
    for name in "abcd":
        line.ask(name, requester, session="s")
        line.finish(name)

    assert len(line.spool.said["kitchen", "s"]) == max_turns
    assert requester.last.session == SessionUse(turns=max_turns, left=1)


# Whatever goes wrong


async def test_a_prompt_that_cannot_be_handed_on_fails_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b")
    line.ask("c")
    usual = line.engine.submit

    def submit(command: Any) -> None:
        if command.messages[-1].content == "b":
            raise ValueError("a defect")
        usual(command)

    monkeypatch.setattr(line.engine, "submit", submit)
    line.finish("a")

    assert [end.code for end in requester.ends] == ["internal"]
    assert line.running == ["a", "c"]


async def test_a_prompt_that_is_taken_from_the_engine_is_cancelled_there() -> None:
    line = Line()
    line.ask("a")
    line.pipeline._dispatch.abandon(line.pipeline._jobs["kitchen", "a"])

    assert (line.engine.cancelled, line.pipeline.active) == ([Cancel(1, "cancelled")], 0)
