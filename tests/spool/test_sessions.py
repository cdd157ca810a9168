"""Conversations on disk: whose they are, and what leaves them."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.messages import ChatMessage
from edged.settings import SessionSettings
from edged.spool.database import open_database
from edged.spool.sessions import TURNS, NewTurn, Turn, erase, fitting, keep_turn, turns


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_database(tmp_path)
    yield connection
    connection.close()


def turn(number: int, tokens: int = 10, text: str = "hi") -> Turn:
    return Turn(number, (ChatMessage("user", text), ChatMessage("assistant", "hello")), tokens)


def keep(
    connection: sqlite3.Connection,
    number: int,
    *,
    client: str = "kitchen",
    session: str = "s",
    since: int = 0,
    at_s: float = 0.0,
    text: str = "hi",
    **limits: Any,
) -> None:
    new = NewTurn(client, session, turn(number, text=text), since)
    keep_turn(connection, new, SessionSettings(**limits), at_s)


def kept(
    connection: sqlite3.Connection, session: str = "s", client: str = "kitchen", oldest_s: float = 0
) -> list[Turn]:
    return turns(connection.execute(TURNS, (client, session)).fetchall(), oldest_s)


def test_a_turn_comes_back_equal(connection: sqlite3.Connection) -> None:
    keep(connection, 1, text="Grüße 😀 'quoted' \\")

    assert kept(connection) == [turn(1, text="Grüße 😀 'quoted' \\")]


def test_turns_come_in_the_order_said(connection: sqlite3.Connection) -> None:
    for number in (2, 5, 9):
        keep(connection, number)

    assert [each.number for each in kept(connection)] == [2, 5, 9]


def test_a_session_of_that_name_belongs_to_each_client(connection: sqlite3.Connection) -> None:
    keep(connection, 1, client="kitchen")
    keep(connection, 2, client="bedroom")

    assert kept(connection) == [turn(1)]


def test_turns_before_the_oldest_that_is_used_leave(connection: sqlite3.Connection) -> None:
    for number in (1, 2, 3):
        keep(connection, number)
    keep(connection, 4, since=3)

    assert [each.number for each in kept(connection)] == [3, 4]


def test_turns_of_others_do_not_leave(connection: sqlite3.Connection) -> None:
    keep(connection, 1, client="bedroom")
    keep(connection, 2, session="t")
    keep(connection, 3, since=3)

    assert kept(connection, client="bedroom") == [turn(1)]
    assert kept(connection, session="t") == [turn(2)]


def test_the_same_turn_again_is_one(connection: sqlite3.Connection) -> None:
    keep(connection, 1)
    keep(connection, 1)

    assert kept(connection) == [turn(1)]


def test_a_client_has_no_more_sessions_than_allowed(connection: sqlite3.Connection) -> None:
    for number, session in enumerate("abc", 1):
        keep(connection, number, session=session, max_sessions=2)

    assert [bool(kept(connection, session)) for session in "abc"] == [False, True, True]


def test_the_session_that_rested_longest_leaves(connection: sqlite3.Connection) -> None:
    for number, session in enumerate("abac", 1):
        keep(connection, number, session=session, max_sessions=2)

    assert [bool(kept(connection, session)) for session in "abc"] == [True, False, True]


def test_one_clients_sessions_do_not_push_out_anothers(connection: sqlite3.Connection) -> None:
    keep(connection, 1, client="bedroom")
    for number in range(2, 10):
        keep(connection, number, session=str(number), max_sessions=1)

    assert kept(connection, client="bedroom") == [turn(1)]


def test_a_conversation_that_rested_too_long_is_not_gone_on_with(
    connection: sqlite3.Connection,
) -> None:
    keep(connection, 1, at_s=10.0)

    assert kept(connection, oldest_s=11.0) == []


def test_an_old_turn_stays_while_its_conversation_goes_on(connection: sqlite3.Connection) -> None:
    keep(connection, 1, at_s=10.0)
    keep(connection, 2, at_s=100.0)

    assert len(kept(connection, oldest_s=50.0)) == 2


def test_conversations_that_rested_are_erased_whole(connection: sqlite3.Connection) -> None:
    keep(connection, 1, session="old", at_s=10.0)
    keep(connection, 2, session="old", at_s=20.0)
    keep(connection, 3, session="new", at_s=10.0)
    keep(connection, 4, session="new", at_s=60.0)
    erase(connection, 50.0)

    left = connection.execute("SELECT number FROM turns ORDER BY number").fetchall()
    assert left == [(3,), (4,)]


@pytest.mark.parametrize(
    ("limits", "room_tokens", "numbers"),
    [
        ({}, 1000, [1, 2, 3]),
        ({}, 25, [2, 3]),
        ({}, 9, []),
        ({}, -5, []),
        ({"max_turns": 1}, 1000, []),
        ({"max_turns": 3}, 1000, [2, 3]),
        ({"max_turns": 4}, 1000, [1, 2, 3]),
        ({"max_tokens": 20}, 1000, [2, 3]),
        ({"max_tokens": 1000}, 10, [3]),
    ],
)
def test_the_last_turns_that_fit_stay(
    limits: dict[str, int], room_tokens: int, numbers: list[int]
) -> None:
    chosen = fitting([turn(1), turn(2), turn(3)], SessionSettings(**limits), room_tokens)  # type: ignore[arg-type]

    assert [each.number for each in chosen] == numbers
