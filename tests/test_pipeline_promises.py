"""What was accepted is answered once, and whoever asks again hears the same."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.errors import DiskFull
from edged.messages import Accepted, Delta, Done, Failed, Waiting
from edged.settings import SessionSettings, SpoolSettings
from edged.spool.spool import Spool
from edged.transports.encode import encode_reply
from tests.pipeline_line import PATIENCE_S, Line, Requester

NO_ROOM = DiskFull("no room", retry_after_s=60, details={"available": 1, "needed": 2})


def slow_line(**limits: Any) -> Line:
    """A line whose spool commits when the test says so."""
    line = Line(**limits)
    line.spool.is_slow = True
    return line


# Acceptance


async def test_a_prompt_is_accepted_once_it_is_on_disk() -> None:
    line = slow_line()
    requester = line.ask("a")
    before = list(requester.messages)
    line.spool.commit()

    assert (before, requester.messages) == ([], [Accepted("attic", "phi", 0, None)])


async def test_a_prompt_is_acknowledged_once_it_is_on_disk() -> None:
    line = slow_line()
    requester = line.ask("a")
    before = requester.acknowledged
    line.spool.commit()

    assert (before, requester.acknowledged) == (0, 1)


async def test_a_prompt_is_begun_while_it_is_being_written() -> None:
    line = slow_line()
    line.ask("a")

    assert line.running == ["a"]


async def test_what_is_answered_before_the_acceptance_follows_it() -> None:
    line = slow_line()
    requester = line.ask("a")
    line.piece("a", "hel", 1)
    line.piece("a", "lo", 2)
    before = list(requester.messages)
    line.spool.commit()

    assert before == []
    assert requester.messages[1:] == [Delta("hello", 2)]


async def test_an_answer_that_was_there_before_the_acceptance_keeps_its_order() -> None:
    line = slow_line()
    requester = line.ask("a")
    line.piece("a", "hel", 1)
    line.finish("a", "lo")
    line.spool.commit()

    assert [type(message) for message in requester.messages] == [Accepted, Delta, Done]
    assert requester.numbers == [(0, 0), (0, 1), (0, 2)]
    assert requester.deltas == requester.last.text == "hello"


async def test_a_prompt_that_cannot_be_written_is_refused() -> None:
    line = slow_line()
    requester = line.ask("a")
    line.spool.failure = NO_ROOM
    line.spool.commit()

    assert [message.code for message in requester.messages] == ["disk_full"]
    assert (requester.numbers, requester.acknowledged) == ([(0, 0)], 1)


async def test_a_prompt_that_cannot_be_written_is_taken_from_the_engine() -> None:
    line = slow_line()
    line.ask("a")
    line.ask("b")
    line.spool.failure = NO_ROOM
    line.spool.commit()

    assert ([each.job for each in line.engine.cancelled], line.pipeline.active) == ([1, 2], 0)


async def test_without_room_on_the_disk_nothing_is_begun() -> None:
    line = Line()
    line.spool.no_room = NO_ROOM

    assert line.ask("a").last == Failed.of(NO_ROOM)
    assert line.running == []


async def test_a_refusal_is_the_first_message_and_acknowledged() -> None:
    line = Line()
    requester = line.ask("a", model="llama")

    assert (requester.numbers, requester.acknowledged) == ([(0, 0)], 1)


async def test_nothing_is_kept_of_a_refusal() -> None:
    line = Line()
    line.ask("a", model="llama")

    assert line.spool.rows == {}


# The end


async def test_an_answer_is_published_once_it_is_on_disk() -> None:
    line = Line()
    requester = line.ask("a")
    line.spool.is_slow = True
    line.finish("a", "hello")
    before = list(requester.ends)
    line.spool.commit()

    assert (before, requester.last.text) == ([], "hello")


async def test_the_next_one_starts_while_an_answer_is_being_written() -> None:
    line = Line()
    line.ask("a")
    line.ask("b")
    line.spool.is_slow = True
    line.finish("a")

    assert line.running == ["a", "b"]


async def test_cancelling_an_answer_that_is_being_written_changes_nothing() -> None:
    line = Line()
    requester = line.ask("a")
    line.spool.is_slow = True
    line.finish("a", "hello")
    line.pipeline.cancel("kitchen", "a")
    line.spool.commit()

    assert [message.text for message in requester.ends] == ["hello"]


async def test_a_prompt_cancelled_before_it_is_written_is_accepted_and_ends() -> None:
    line = slow_line()
    line.ask("a")
    requester = line.ask("b")
    line.pipeline.cancel("kitchen", "b")
    line.spool.commit()

    assert [message.type for message in requester.messages] == ["accepted", "failed"]
    assert requester.numbers == [(0, 0), (0, 1)]


# Asking again


async def test_the_same_prompt_again_repeats_the_acceptance_and_runs_once() -> None:
    line = Line()
    requester = line.ask("a")
    line.ask("a", to=requester)

    assert (requester.replies[0], line.running) == (requester.replies[1], ["a"])


async def test_the_same_prompt_again_before_it_is_written_is_acknowledged_with_the_first() -> None:
    line = slow_line()
    first, second = line.ask("a"), line.ask("a")
    before = (first.acknowledged, second.acknowledged)
    line.spool.commit()

    assert (before, first.acknowledged, second.acknowledged) == ((0, 0), 1, 1)


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


async def test_an_answered_id_gives_its_answer_again_and_does_not_run() -> None:
    line = Line()
    first = line.ask("a")
    line.finish("a", "hello")
    again = line.ask("a")

    assert (again.replies, line.running) == ([first.replies[-1]], ["a"])


async def test_an_answered_id_with_another_body_is_a_conflict() -> None:
    line = Line()
    line.ask("a")
    line.finish("a")

    assert line.ask("a", digest=b"other").last.code == "duplicate_conflict"


async def test_an_id_asked_again_while_its_answer_is_written_hears_of_it_once() -> None:
    line = Line()
    requester = line.ask("a")
    line.spool.is_slow = True
    line.finish("a", "hello")
    line.ask("a", to=requester)
    line.spool.commit()

    assert (len(requester.ends), line.running) == (1, ["a"])


async def test_who_asks_again_is_acknowledged() -> None:
    line = Line()
    line.ask("a")
    running = line.ask("a")
    line.finish("a")
    ended, conflict = line.ask("a"), line.ask("a", digest=b"other")

    assert [each.acknowledged for each in (running, ended, conflict)] == [1, 1, 1]


# After a restart


def restarted(line: Line, **limits: Any) -> Line:
    """Another daemon on the spool of one that is gone."""
    return Line(spool=line.spool, **limits)


async def test_what_was_not_answered_runs_again_with_its_restarts_raised() -> None:
    line = Line()
    line.ask("a")
    line.piece("a", "hal", 1)
    next_line = restarted(line)
    next_line.load()
    next_line.piece("a", "hel", 1)
    next_line.finish("a", "lo")

    assert next_line.away.numbers == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert next_line.away.last.text == "hello"


async def test_no_two_lives_of_a_prompt_have_the_same_numbers_though_the_disk_is_slow() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.spool.is_slow = True
    line.lose_worker()
    line.load()
    line.piece("a", "hel", 1)
    after_a_kill = restarted(line)  # nothing of the second life was written
    after_a_kill.load()
    after_a_kill.finish("a", "hello")

    assert set(requester.numbers).isdisjoint(after_a_kill.away.numbers)


async def test_a_prompt_that_begins_again_says_so_once_that_is_on_disk() -> None:
    line = Line()
    requester = line.ask("a")
    line.spool.is_slow = True
    line.lose_worker()
    line.load()
    line.piece("a", "hel", 1)
    before = list(requester.numbers)
    line.finish("a", "lo")
    line.spool.commit()

    assert before == [(0, 0)]
    assert requester.numbers == [(0, 0), (1, 0), (1, 1), (1, 2)]


async def test_the_same_prompt_again_while_it_begins_again_is_acknowledged() -> None:
    line = Line()
    line.ask("a")
    line.spool.is_slow = True
    line.lose_worker()

    assert line.ask("a").acknowledged == 1


async def test_a_restart_keeps_the_order_of_arrival() -> None:
    line = Line(slots=2)
    for name in "abcd":
        line.ask(name)
    next_line = restarted(line, slots=4)
    next_line.load(slots=4)

    assert next_line.running == ["a", "b", "c", "d"]


async def test_a_restart_takes_back_more_than_may_wait() -> None:
    line = Line()
    for name in "abc":
        line.ask(name)

    assert restarted(line, max_prompts=1).pipeline.queued == 3


async def test_a_prompt_that_comes_again_after_a_restart_is_not_run_twice() -> None:
    line = Line()
    line.ask("a")
    next_line = restarted(line)
    next_line.ask("a")
    next_line.load()

    assert next_line.running == ["a"]


async def test_numbers_go_on_after_a_restart() -> None:
    line = Line()
    line.ask("a")
    line.spool.last_number = 7
    next_line = restarted(line, slots=2)
    next_line.load(slots=2)
    next_line.ask("b")

    assert next_line.job("b") == 8


async def test_an_answer_that_nobody_took_is_sent_after_a_restart() -> None:
    line = Line()
    requester = line.ask("a", to=Requester(is_away=True))
    line.finish("a", "hello")

    assert restarted(line).away.replies == [requester.replies[-1]]


async def test_an_answer_that_arrived_is_not_sent_after_a_restart() -> None:
    line = Line()
    line.ask("a")
    line.finish("a", "hello")

    assert restarted(line).away.replies == []


async def test_a_deadline_goes_on_while_the_daemon_is_gone() -> None:
    line = Line()
    line.ask("a", deadline_s=60)
    line.spool.age_s = 61.0

    assert (await restarted(line).away.hears(Failed)).code == "expired"


async def test_a_deadline_that_has_time_left_is_kept() -> None:
    line = Line()
    line.ask("a", deadline_s=60)
    line.spool.age_s = 59.0
    next_line = restarted(line)
    await asyncio.sleep(0.01)

    assert next_line.away.ends == []


# Stopping


async def test_draining_refuses_what_comes() -> None:
    line = Line()
    await line.pipeline.drain(0)

    assert (line.ask("a").last.code, line.spool.rows) == ("draining", {})


async def test_draining_waits_for_who_is_being_answered() -> None:
    line = Line()
    requester = line.ask("a")
    draining = asyncio.create_task(line.pipeline.drain(PATIENCE_S))
    await asyncio.sleep(0)
    line.finish("a", "hello")
    await draining

    assert requester.last.text == "hello"


async def test_draining_starts_nobody() -> None:
    line = Line()
    line.ask("a")
    line.ask("b")
    draining = asyncio.create_task(line.pipeline.drain(PATIENCE_S))
    await asyncio.sleep(0)
    line.finish("a")
    await draining

    assert line.running == ["a"]


@pytest.mark.parametrize("is_running", [True, False])
async def test_who_is_not_answered_in_time_is_told_and_kept(is_running: bool) -> None:
    line = Line()
    requester = line.ask("a") if is_running else (line.ask("a"), line.ask("b"))[1]
    await line.pipeline.drain(0)

    assert isinstance(requester.last, Waiting)
    assert "kept" in requester.last.reason
    assert restarted(line).pipeline.queued == (1 if is_running else 2)


async def test_who_wants_no_stream_hears_nothing_of_draining() -> None:
    line = Line()
    requester = line.ask("a", stream=False)
    await line.pipeline.drain(0)

    assert [message.type for message in requester.messages] == ["accepted"]


async def test_an_answer_that_is_being_written_while_draining_is_the_last_message() -> None:
    line = Line()
    requester = line.ask("a")
    line.spool.is_slow = True
    line.finish("a")
    await line.pipeline.drain(0)
    line.spool.commit()

    assert [message.type for message in requester.messages] == ["accepted", "done"]


# On a real disk


@asynccontextmanager
async def on_disk(
    folder: Path, send_to: Callable[[str], Any] | None = None, **limits: Any
) -> AsyncIterator[Line]:
    """A line with a real spool, which ends like a daemon that is killed."""
    spool = Spool(folder, SpoolSettings(), SessionSettings())
    line = Line(spool=spool, send_to=send_to, **limits)
    running = asyncio.create_task(spool.run())
    try:
        yield line
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        spool.close()


async def test_a_prompt_on_disk_is_answered_by_the_next_daemon(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as line:
        await line.ask("a").hears(Accepted)
    async with on_disk(tmp_path) as line:
        line.load()
        line.finish("a", "hello")

        assert (await line.away.hears(Done)).text == "hello"


async def test_an_answer_on_disk_is_byte_by_byte_the_same(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as line:
        requester = line.ask("ä😀")
        line.finish("ä😀", "hellö ☃")
        await requester.hears(Done)
    async with on_disk(tmp_path) as line:
        again = line.ask("ä😀")

        assert line.running == []
    assert encode_reply(again.replies[0], None) == encode_reply(requester.replies[-1], None)


async def test_the_same_prompt_runs_again_with_the_same_seed_and_sampling(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as line:
        await line.ask("a").hears(Accepted)
        (before,) = line.engine.submitted
    async with on_disk(tmp_path) as line:
        line.load()

        assert line.engine.submitted == [before]


async def test_an_answer_that_cannot_be_read_now_is_not_taken_for_none(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as line:
        line.ask("a")
        line.finish("a", "the answer")
        await line.spool.flush()
        reader, line.spool._writer._reader = line.spool._writer._reader, FailingReader()
        refused = line.ask("a")
        if line.running[1:]:
            line.finish("a", "another answer")
        line.spool._writer._reader = reader
        await line.spool.flush()

        assert refused.last.code == "internal"
        assert line.ask("a").last.text == "the answer"


class FailingReader:
    """A connection to a disk that fails for a moment."""

    def execute(self, *_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")


async def test_replies_go_to_the_address_that_was_kept(tmp_path: Path) -> None:
    addresses: list[str] = []

    def send_to(address: str) -> Requester:
        addresses.append(address)
        return Requester()

    async with on_disk(tmp_path) as line:
        await line.ask("a").hears(Accepted)
    async with on_disk(tmp_path, send_to):
        assert addresses == ["address of a"]


async def test_each_life_of_a_prompt_has_its_own_number_of_restarts(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as line:
        await line.ask("a").hears(Accepted)
        line.unload()
        line.load()
        await line.spool.flush()
    for restarts in (2, 3):
        async with on_disk(tmp_path) as line:
            assert line.away.numbers == [(restarts, 0)]


async def test_a_kill_in_the_middle_loses_no_prompt_and_answers_none_twice(tmp_path: Path) -> None:
    names = [f"prompt {number}" for number in range(50)]
    asked = {name: Requester(is_away=True) for name in names}
    async with on_disk(tmp_path, slots=4, max_prompts=len(names)) as line:
        for name in names:
            line.ask(name, to=asked[name])
        for name in names[:30]:
            line.finish(name, "hello")
            await asyncio.sleep(0)
    async with on_disk(tmp_path, slots=len(names)) as line:
        line.load(slots=len(names))
        again = set(line.running)
        answered = {reply.id for reply in line.away.replies if isinstance(reply.message, Done)}

    assert {name for name in names if asked[name].ends} <= answered
    assert {name for name in names if asked[name].replies} <= answered | again
    assert answered & again == set()
