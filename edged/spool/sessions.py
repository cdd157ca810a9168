"""Conversations: what a client and its node have said in a session, turn by turn.

A turn is what was asked and the answer to it. It is written in the transaction that commits the
answer, so that a prompt that runs again after a crash sees the same turns as before.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from edged.messages import ChatMessage
from edged.settings import SessionSettings


@dataclass(frozen=True)
class Turn:
    """What was said at once; ``tokens`` is what it adds to a prompt."""

    number: int
    said: tuple[ChatMessage, ...]
    tokens: int


@dataclass(frozen=True)
class NewTurn:
    """A turn to be kept. Of those before, what is older than ``since`` leaves."""

    client: str
    session: str
    turn: Turn
    since: int


TURNS: Final = (
    "SELECT number, said, tokens, at_s FROM turns WHERE client = ? AND session = ? ORDER BY number"
)


def turns(rows: Sequence[tuple[int, str, int, float]], oldest_s: float) -> list[Turn]:
    """What ``TURNS`` gave, oldest first; nothing if the last came before ``oldest_s``."""
    if not rows or rows[-1][3] < oldest_s:
        return []
    return [Turn(number, _said(text), tokens) for number, text, tokens, _ in rows]


def fitting(kept: Sequence[Turn], limits: SessionSettings, room_tokens: int) -> list[Turn]:
    """The last turns that the limits and the room leave, with one more to come."""
    if limits.max_tokens is not None:
        room_tokens = min(room_tokens, limits.max_tokens)
    chosen: list[Turn] = []
    for turn in reversed(kept[max(0, len(kept) - limits.max_turns + 1) :]):
        room_tokens -= turn.tokens
        if room_tokens < 0:
            break
        chosen.append(turn)
    return chosen[::-1]


def keep_turn(
    connection: sqlite3.Connection, new: NewTurn, limits: SessionSettings, now_s: float
) -> None:
    """Within a transaction: what leaves, the turn, and no more sessions than allowed."""
    connection.execute(
        "DELETE FROM turns WHERE client = ? AND session = ? AND number < ?",
        (new.client, new.session, new.since),
    )
    connection.execute(
        "INSERT OR REPLACE INTO turns (number, client, session, said, tokens, at_s) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            *(new.turn.number, new.client, new.session),
            json.dumps([asdict(message) for message in new.turn.said], ensure_ascii=False),
            *(new.turn.tokens, now_s),
        ),
    )
    connection.execute(
        "DELETE FROM turns WHERE client = ?1 AND session NOT IN (SELECT session FROM turns "
        "WHERE client = ?1 GROUP BY session ORDER BY max(number) DESC LIMIT ?2)",
        (new.client, limits.max_sessions),
    )


def erase(connection: sqlite3.Connection, oldest_s: float) -> None:
    """Within a transaction: conversations whose last turn came before ``oldest_s``."""
    connection.execute(
        "DELETE FROM turns WHERE (client, session) IN (SELECT client, session FROM turns "
        "GROUP BY client, session HAVING max(at_s) < ?)",
        (oldest_s,),
    )


def shorten(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Within a transaction: the oldest turns beyond so much, of all clients.

    Each client's are bounded, but where no broker guards the names, clients are not.
    """
    connection.execute(
        "DELETE FROM turns WHERE number IN (SELECT number FROM (SELECT number, "
        "sum(length(CAST(said AS BLOB))) OVER (ORDER BY number DESC) AS total FROM turns) "
        "WHERE total > ?)",
        (max_bytes,),
    )


def _said(text: str) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage(each["role"], each["content"]) for each in json.loads(text))
