"""What was promised, on disk: prompts from their acceptance on, answers until they are erased."""

import logging
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from edged.errors import DiskFull, InternalFailure
from edged.messages import Prompt, Reply
from edged.settings import SessionSettings, SpoolSettings
from edged.spool import codec, sessions
from edged.spool.clock import Mark, SpoolClock
from edged.spool.database import used_bytes
from edged.spool.sessions import NewTurn, Turn
from edged.spool.writer import Then, Write, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """A prompt that was accepted and has no answer yet; ``age_s`` is since its arrival."""

    number: int
    prompt: Prompt
    address: str
    restarts: int
    deaths: int
    age_s: float


@dataclass(frozen=True)
class Ended:
    """A prompt's answer, and where it belongs."""

    number: int
    digest: bytes
    address: str
    reply: Reply


class Spool:
    """One a state directory. All methods are the loop's; ``run`` writes until cancelled.

    Raises ``ConfigError`` where the folder cannot be written.
    """

    def __init__(self, folder: Path, limits: SpoolSettings, session: SessionSettings) -> None:
        self.limits, self.session_limits = limits, session
        self._writer = Writer(folder, self._tidy)
        self._read = self._writer.read
        self.run, self.flush = self._writer.run, self._writer.flush
        marks = self._read("SELECT spool_s, boot_s, wall_s, boot_id FROM clock")
        self._clock = SpoolClock(Mark(*marks[0]) if marks else None)
        numbers = self._read("SELECT max(number) FROM prompts UNION SELECT max(number) FROM turns")
        self.last_number: int = max((number or 0 for (number,) in numbers), default=0)
        """The highest number that a prompt has had."""

    @property
    def fault(self) -> str | None:
        """What is wrong with the disk, in words for the operator."""
        return self._writer.fault

    @property
    def commits(self) -> int:
        """Since the start; each waits for the disk."""
        return self._writer.commits

    @property
    def no_room(self) -> DiskFull | None:
        """Why no prompt can be taken, while that is so."""
        return self._writer.no_room

    def close(self) -> None:
        """After ``run`` has ended."""
        self._writer.close()

    # What is there

    def recover(self) -> list[Kept]:
        """At the start: what was accepted and not answered, with its restarts raised by one."""
        raised = "UPDATE prompts SET restarts = restarts + 1 WHERE terminal IS NULL"
        self._writer.write_now(Write(lambda connection: connection.execute(raised)))
        rows = self._read(
            "SELECT number, prompt, digest, address, restarts, deaths, arrived_s FROM prompts "
            "WHERE terminal IS NULL ORDER BY number"
        )
        now_s = self._clock.now_s()

        def kept(*row: Any) -> Kept:
            number, text, digest, address, restarts, deaths, at_s = row
            prompt = codec.read_prompt(text, digest)
            return Kept(number, prompt, address, restarts, deaths, now_s - at_s)

        return self._legible(rows, kept)

    def find(self, key: tuple[str, str]) -> Ended | None:
        """The answer that this client's id has had.

        Raises ``InternalFailure`` where the disk fails: without it, it would be answered anew.
        """
        query = f"{_ENDED} WHERE client = ? AND id = ? AND terminal IS NOT NULL"
        rows = self._writer.try_to_read(query, *key)
        if rows is None:
            raise InternalFailure(
                f"whether this id was answered cannot be read now ({self.fault}); try again"
            )
        return next(iter(self._legible(rows, _ended)), None)

    def undelivered(self, but: Collection[int], count: int) -> list[Ended]:
        """Answers that nobody took responsibility for, oldest first."""
        rows = self._read(
            f"{_ENDED} WHERE terminal IS NOT NULL AND delivered = 0 "
            "ORDER BY finished_s, number LIMIT ?",
            count + len(but),
        )
        return self._legible([row for row in rows if row[0] not in but][:count], _ended)

    def turns(self, client: str, session: str) -> list[Turn]:
        """What was said in a conversation, oldest first; none if it has rested for too long.

        Raises ``InternalFailure`` where the disk fails: to go on without it would lose it.
        """
        oldest_s = self._clock.now_s() - self.session_limits.keep_s
        rows = self._writer.try_to_read(sessions.TURNS, client, session)
        if rows is None:
            raise InternalFailure(
                f"the conversation cannot be read now ({self.fault}); try again", retryable=True
            )
        return sessions.turns(rows, oldest_s)

    def _legible(self, rows: list[Any], read: Callable[..., T]) -> list[T]:
        """What can be read; what the disk has spoilt is erased, and may be asked anew."""
        legible = []
        for row in rows:
            try:
                legible.append(read(*row))
            except (ValueError, KeyError, TypeError, AttributeError):
                log.error("prompt %d is spoilt in the spool, and erased", row[0])  # noqa: TRY400
                self._erase(row[0])
        return legible

    # What is to be written

    def accept(self, number: int, prompt: Prompt, address: str, then: Then) -> None:
        """Keep a prompt; ``then`` learns whether it could be."""
        text, at_s = codec.prompt_text(prompt), self._clock.now_s()

        def run(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO prompts (number, client, id, digest, address, prompt, arrived_s) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, *prompt.key, prompt.digest, address, text, at_s),
            )

        self._writer.write(Write(run, then, is_promised=False))

    def finish(self, prompt: Prompt, ended: Ended, turn: NewTurn | None, then: Then) -> None:
        """Keep an answer, and forget what was asked."""
        text, at_s = codec.terminal_text(ended.reply), self._clock.now_s()

        def run(connection: sqlite3.Connection) -> None:
            # Inserted where the prompt could not be kept, or a corrupt file was set aside.
            connection.execute(
                "INSERT INTO prompts "
                "(number, client, id, digest, address, arrived_s, terminal, finished_s) "
                "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6) ON CONFLICT (client, id) DO UPDATE SET "
                "prompt = NULL, terminal = ?7, finished_s = ?6, delivered = 0",
                (ended.number, *prompt.key, ended.digest, ended.address, at_s, text),
            )
            if turn is not None:
                sessions.keep_turn(connection, turn, self.session_limits, at_s)

        self._writer.write(Write(run, then))

    def note(self, number: int, restarts: int, deaths: int, then: Then) -> None:
        """Keep how often a prompt began again, and how often the worker died of it."""
        update = "UPDATE prompts SET restarts = ?, deaths = ? WHERE number = ?"
        values = (restarts, deaths, number)
        self._writer.write(Write(lambda connection: connection.execute(update, values), then))

    def delivered(self, number: int, then: Then) -> None:
        """Note that an answer has arrived; that may wait, since it may arrive twice."""
        update = "UPDATE prompts SET delivered = 1 WHERE number = ?"
        write = Write(lambda connection: connection.execute(update, (number,)), then)
        self._writer.write(write, at_once=False)

    def _erase(self, number: int) -> None:
        erase = "DELETE FROM prompts WHERE number = ?"
        self._writer.write(Write(lambda connection: connection.execute(erase, (number,))))

    def _tidy(self, connection: sqlite3.Connection) -> bool:
        """Whether something was erased."""
        now_s, before = self._clock.now_s(), connection.total_changes
        connection.execute(
            "DELETE FROM prompts WHERE finished_s < ?", (now_s - self.limits.keep_s,)
        )
        if used_bytes(connection) > self.limits.max_bytes:  # else there is nothing to add up
            # The newest answers that fit stay.
            connection.execute(
                "DELETE FROM prompts WHERE number IN (SELECT number FROM (SELECT number, "
                "sum(length(CAST(terminal AS BLOB))) OVER (ORDER BY finished_s DESC, number DESC) "
                "AS total FROM prompts WHERE finished_s IS NOT NULL) WHERE total > ?)",
                (self.limits.max_bytes,),
            )
            sessions.shorten(connection, self.limits.max_bytes)
        sessions.erase(connection, now_s - self.session_limits.keep_s)
        has_erased = connection.total_changes > before
        self._keep_time(connection)
        connection.execute("PRAGMA incremental_vacuum").fetchall()
        return has_erased

    def _keep_time(self, connection: sqlite3.Connection) -> None:
        mark = self._clock.mark()
        connection.execute(
            "INSERT OR REPLACE INTO clock (one, spool_s, boot_s, wall_s, boot_id) "
            "VALUES (1, ?, ?, ?, ?)",
            (mark.spool_s, mark.boot_s, mark.wall_s, mark.boot_id),
        )


_ENDED: Final = "SELECT number, digest, address, terminal FROM prompts"


def _ended(number: int, digest: bytes, address: str, text: str) -> Ended:
    return Ended(number, digest, address, codec.read_terminal(text))
