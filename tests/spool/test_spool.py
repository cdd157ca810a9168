"""What was promised is on disk: prompts, answers, and for how long."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edged.errors import InternalFailure, PromptFailure
from edged.messages import (
    ChatMessage,
    Done,
    Prompt,
    Reply,
    Sampling,
    SessionUse,
    Timings,
    Usage,
)
from edged.settings import SessionSettings, SpoolSettings
from edged.spool import writer as writer_module
from edged.spool.clock import SpoolClock
from edged.spool.database import BALLAST_BYTES, FILE
from edged.spool.sessions import NewTurn, Turn
from edged.spool.spool import Ended, Kept, Spool

PATIENCE_S = 20.0


class Told:
    """Hears what becomes of writes."""

    def __init__(self) -> None:
        self.outcomes: list[PromptFailure | None] = []

    def __call__(self, failure: PromptFailure | None) -> None:
        self.outcomes.append(failure)


def prompt(name: str, **changes: Any) -> Prompt:
    return replace(
        Prompt(
            name,
            "kitchen",
            (ChatMessage("user", f"the question {name}"),),
            Sampling(9, 0.5, 0, 1, 0, 1, seed=42, stop=("\n",)),
            name.encode(),
        ),
        **changes,
    )


def ended(number: int, name: str, text: str = "hello") -> Ended:
    done = Done(text, "stop", Usage(3, 0, 5), Timings(1.0, None, 3.0, 4.0), 42, SessionUse(2, 1))
    return Ended(number, name.encode(), f"address of {name}", Reply(name, 3, 0, done))


@asynccontextmanager
async def opened(
    folder: Path, limits: SpoolSettings | None = None, session: SessionSettings | None = None
) -> AsyncIterator[Spool]:
    """A spool that writes; it ends like that of a daemon that is killed."""
    spool = Spool(folder, limits or SpoolSettings(), session or SessionSettings())
    running = asyncio.create_task(spool.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield spool
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        spool.close()


async def accept(spool: Spool, number: int, name: str, **changes: Any) -> Told:
    told = Told()
    spool.accept(number, prompt(name, **changes), f"address of {name}", told)
    await spool.flush()
    return told


async def finish(
    spool: Spool, number: int, name: str, text: str = "hello", turn: NewTurn | None = None
) -> Told:
    told = Told()
    spool.finish(prompt(name), ended(number, name, text), turn, told)
    await spool.flush()
    return told


# Prompts


async def test_a_prompt_that_was_accepted_is_found_by_the_next_daemon(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        told = await accept(spool, 1, "a", deadline_s=5.0, session="s")
    async with opened(tmp_path) as spool:
        (kept,) = spool.recover()

    assert told.outcomes == [None]
    expected = prompt("a", deadline_s=5.0, session="s")
    assert kept == Kept(1, expected, "address of a", restarts=1, deaths=0, age_s=kept.age_s)
    assert kept.age_s >= 0


async def test_each_start_raises_the_restarts(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
    for restarts in (1, 2, 3):
        async with opened(tmp_path) as spool:
            assert [kept.restarts for kept in spool.recover()] == [restarts]


async def test_restarts_and_deaths_are_noted(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
        spool.note(1, restarts=4, deaths=1, then=Told())
        await spool.flush()
    async with opened(tmp_path) as spool:
        assert [(kept.restarts, kept.deaths) for kept in spool.recover()] == [(5, 1)]


async def test_prompts_are_recovered_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for number, name in ((3, "c"), (1, "a"), (2, "b")):
            await accept(spool, number, name)
    async with opened(tmp_path) as spool:
        assert [kept.number for kept in spool.recover()] == [1, 2, 3]


async def test_what_was_answered_is_not_recovered(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
        await finish(spool, 1, "a")
    async with opened(tmp_path) as spool:
        assert spool.recover() == []


async def test_the_same_id_cannot_be_accepted_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
        told = await accept(spool, 2, "a")

    assert [type(outcome) for outcome in told.outcomes] == [InternalFailure]


async def test_the_same_id_of_two_clients_is_two_prompts(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
        told = await accept(spool, 2, "a", client="bedroom")

    assert told.outcomes == [None]


async def test_numbers_go_on_from_the_highest(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        assert spool.last_number == 0
        await accept(spool, 7, "a")
    async with opened(tmp_path) as spool:
        assert spool.last_number == 7


async def test_numbers_go_on_from_a_turn_whose_prompt_was_erased(tmp_path: Path) -> None:
    turn = NewTurn("kitchen", "s", Turn(9, (ChatMessage("user", "hi"),), 1), since=9)
    async with opened(tmp_path, SpoolSettings(keep_s=0)) as spool:
        await accept(spool, 9, "a")
        await finish(spool, 9, "a", turn=turn)
        await tidied(spool)
    async with opened(tmp_path) as spool:
        assert spool.find(("kitchen", "a")) is None
        assert spool.last_number == 9


# Answers


async def test_an_answer_is_found_by_client_and_id(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
        told = await finish(spool, 1, "a")

        assert told.outcomes == [None]
        assert spool.find(("kitchen", "a")) == ended(1, "a")
        assert spool.find(("bedroom", "a")) is None


async def test_a_prompt_without_an_answer_has_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")

        assert spool.find(("kitchen", "a")) is None


async def test_an_answer_to_a_prompt_that_could_not_be_kept_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await finish(spool, 1, "a")

        assert spool.find(("kitchen", "a")) == ended(1, "a")


async def test_what_was_asked_is_forgotten_with_the_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
        await finish(spool, 1, "a")
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT prompt FROM prompts").fetchall() == [(None,)]


async def test_answers_that_nobody_took_are_undelivered_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for number, name in ((2, "b"), (1, "a"), (3, "c")):
            await finish(spool, number, name)
        found = [each.number for each in spool.undelivered([], 10)]
        fewer = [each.number for each in spool.undelivered([], 2)]
        others = [each.number for each in spool.undelivered({2}, 1)]

    assert (found, fewer, others) == ([2, 1, 3], [2, 1], [1])


async def test_an_answer_that_was_delivered_is_not_undelivered(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await finish(spool, 1, "a")
        await finish(spool, 2, "b")
        spool.delivered(1, Told())
        await spool.flush()
    async with opened(tmp_path) as spool:
        assert [each.number for each in spool.undelivered([], 10)] == [2]


async def test_a_delivery_costs_no_commit_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await finish(spool, 1, "a")
        before = spool.commits
        told = Told()
        spool.delivered(1, told)
        await asyncio.sleep(0.1)  # nothing happens in it
        between = spool.commits
        await accept(spool, 2, "b")

        assert (between, spool.commits, told.outcomes) == (before, before + 1, [None])


async def test_acceptance_and_answer_are_two_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.flush()
        before = spool.commits
        for number in range(1, 6):
            await accept(spool, number, str(number))
            await finish(spool, number, str(number))
            spool.delivered(number, Told())

        assert spool.commits == before + 10


# Conversations


def new_turn(number: int, session: str = "s") -> NewTurn:
    said = (ChatMessage("user", f"turn {number}"), ChatMessage("assistant", "hello"))
    return NewTurn("kitchen", session, Turn(number, said, 8), since=0)


async def test_a_turn_is_kept_with_its_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await finish(spool, 1, "a", turn=new_turn(1))
    async with opened(tmp_path) as spool:
        assert spool.turns("kitchen", "s") == [new_turn(1).turn]
        assert spool.turns("bedroom", "s") == []


async def test_a_conversation_that_rested_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, session=SessionSettings(keep_s=60)) as spool:
        await finish(spool, 1, "a", turn=new_turn(1))
        pass_time(monkeypatch, 61)

        assert spool.turns("kitchen", "s") == []


async def test_a_conversation_that_cannot_be_read_now_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await finish(spool, 1, "a", turn=new_turn(1))
        monkeypatch.setattr("edged.spool.sessions.TURNS", "SELECT unreadable FROM turns")

        with pytest.raises(InternalFailure, match="cannot be read now"):
            spool.turns("kitchen", "s")


# For how long


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    usual = SpoolClock.now_s
    monkeypatch.setattr(SpoolClock, "now_s", lambda clock: usual(clock) + seconds)


async def tidied(spool: Spool) -> None:
    """What the spool does once a minute."""
    spool._writer._tidied_s = float("-inf")
    await spool.flush()


def files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


async def test_an_answer_is_kept_for_as_long_as_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, SpoolSettings(keep_s=60)) as spool:
        await finish(spool, 1, "a")
        pass_time(monkeypatch, 59)
        await tidied(spool)
        before = spool.find(("kitchen", "a"))
        pass_time(monkeypatch, 2)
        await tidied(spool)

        assert (before, spool.find(("kitchen", "a"))) == (ended(1, "a"), None)


async def test_a_prompt_that_was_not_answered_is_kept_however_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, SpoolSettings(keep_s=60)) as spool:
        await accept(spool, 1, "a")
        pass_time(monkeypatch, 10_000)
        await tidied(spool)

        assert [kept.number for kept in spool.recover()] == [1]


async def test_the_oldest_answers_leave_where_they_take_too_much_room(tmp_path: Path) -> None:
    text = "ä" * 10_000  # of two bytes each
    async with opened(tmp_path, SpoolSettings(max_bytes=70_000)) as spool:
        for number in range(1, 11):
            await finish(spool, number, str(number), text)
        await tidied(spool)
        left = [number for number in range(1, 11) if spool.find(("kitchen", str(number)))]

    assert left == [8, 9, 10]


async def test_the_oldest_turns_leave_where_those_of_many_clients_take_too_much_room(
    tmp_path: Path,
) -> None:
    clients = [f"client {number}" for number in range(1, 11)]
    async with opened(tmp_path, SpoolSettings(max_bytes=70_000)) as spool:
        for number, client in enumerate(clients, 1):
            turn = Turn(number, (ChatMessage("user", "x" * 20_000),), 8)
            await finish(spool, number, client, turn=NewTurn(client, "s", turn, since=0))
        await tidied(spool)
        left = [client for client in clients if spool.turns(client, "s")]

    assert left == clients[-3:]


async def test_the_file_does_not_grow_without_bound(tmp_path: Path) -> None:
    async with opened(tmp_path, SpoolSettings(max_bytes=100_000)) as spool:
        for number in range(1, 201):
            spool.accept(number, prompt(str(number)), "", Told())
            spool.finish(prompt(str(number)), ended(number, str(number), "x" * 5000), None, Told())
            if number % 20 == 0:
                await tidied(spool)
        size_bytes = len(files(tmp_path))

    assert size_bytes - BALLAST_BYTES < 500_000


@pytest.mark.parametrize("limits", [SpoolSettings(keep_s=0), SpoolSettings(max_bytes=65_536)])
async def test_what_is_erased_is_in_no_file_any_more(tmp_path: Path, limits: SpoolSettings) -> None:
    async with opened(tmp_path, limits, SessionSettings(keep_s=0)) as spool:
        for number in range(1, 11):
            await accept(spool, number, str(number))
            text = f"the answer {number} " + "x" * 10_000
            await finish(spool, number, str(number), text, turn=new_turn(number))
        await asyncio.sleep(0.01)  # conversations have to have rested
        before = files(tmp_path)
        await tidied(spool)
        after = files(tmp_path)

    for text in (b"the question 1", b"the answer 1 ", b"turn 1"):
        assert text in before
        assert text not in after


async def test_time_is_kept_at_the_first_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT count(*) FROM clock").fetchall() == [(1,)]


async def test_a_prompt_gets_older_while_the_daemon_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await accept(spool, 1, "a")
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("UPDATE clock SET boot_s = boot_s - 100, wall_s = wall_s - 100")
        connection.commit()
    async with opened(tmp_path) as spool:
        (kept,) = spool.recover()

    assert kept.age_s >= 100


# A disk that spoils what it holds


def spoil(folder: Path, column: str, number: int, value: bytes) -> None:
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute(
            f"UPDATE prompts SET {column} = CAST(? AS TEXT) WHERE number = ?", (value, number)
        )
        connection.commit()


@pytest.mark.parametrize("value", [b"", b"{", b"{}", b"[]", b"\xff\xfe", b'{"messages": 7}'])
async def test_a_spoilt_prompt_is_erased_and_the_others_are_recovered(
    tmp_path: Path, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as spool:
        for number, name in enumerate("abc", 1):
            await accept(spool, number, name)
    spoil(tmp_path, "prompt", 2, value)
    async with opened(tmp_path) as spool:
        assert [kept.number for kept in spool.recover()] == [1, 3]
        told = await accept(spool, 4, "b")

    assert told.outcomes == [None]
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"\xff\xfe", b'{"message": 7}'])
async def test_a_spoilt_answer_is_erased_and_may_be_asked_anew(
    tmp_path: Path, value: bytes
) -> None:
    async with opened(tmp_path) as spool:
        await finish(spool, 1, "a")
        await finish(spool, 2, "b")
    spoil(tmp_path, "terminal", 1, value)
    async with opened(tmp_path) as spool:
        assert [each.number for each in spool.undelivered([], 10)] == [2]
        assert spool.find(("kitchen", "a")) is None
        assert (await accept(spool, 3, "a")).outcomes == [None]


async def test_what_is_promised_after_the_file_was_spoilt_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.02)
    async with opened(tmp_path) as spool:
        for number in range(1, 101):
            spool.accept(number, prompt(str(number)), "x" * 2000, Told())
        await spool.flush()
        spool._writer._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with (tmp_path / FILE).open("r+b") as file:
            file.seek(4096)
            file.write(bytes(range(256)) * ((tmp_path / FILE).stat().st_size // 256 - 16))
        assert spool.find(("kitchen", "1")) is None
        await finish(spool, 1, "1")
        await accept(spool, 101, "101")
    async with opened(tmp_path) as spool:
        assert spool.find(("kitchen", "1")) == ended(1, "1")
        assert [kept.number for kept in spool.recover()] == [101]
        assert spool._clock.now_s() >= 0
