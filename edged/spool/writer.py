"""The spool's writing: what has come together is committed together, in a thread, in order.

A disk without room takes no more prompts, but finishes those that it has; a file that cannot
be read is set aside, and another begun.
"""

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edged.errors import DiskFull, InternalFailure, PromptFailure
from edged.spool.database import (
    BALLAST_BYTES,
    drop_ballast,
    open_database,
    open_reader,
    set_aside,
    take_ballast,
)

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
LOOK_FOR_ROOM_S: Final = 5.0
TIDY_EVERY_S: Final = 60.0

Then = Callable[[PromptFailure | None], None]
"""Called in the loop once something is on disk, or with why it is not."""


@dataclass(frozen=True)
class Write:
    """Statements of one transaction, and who is told of it."""

    run: Callable[[sqlite3.Connection], object]
    then: Then | None = None
    is_promised: bool = True
    """Whether it is of a prompt that was accepted, and so is tried until it works."""

    def tell(self, failure: PromptFailure | None) -> None:
        """It is written, or why it is not."""
        if self.then is not None:
            self.then(failure)


class Writer:
    """The connections to one file. Its methods are the loop's; ``run`` writes until cancelled."""

    def __init__(self, folder: Path, tidy: Callable[[sqlite3.Connection], bool]) -> None:
        """``tidy`` is called once a minute, in a transaction; whether it erased something."""
        self._folder = folder
        self._tidy = tidy
        self._has_erased = False
        self._tidied_s = float("-inf")
        self._writes: list[Write] = []
        self._there_are = asyncio.Event()
        self._written = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._unreadable: sqlite3.DatabaseError | None = None
        self._connection = open_database(folder)
        self._reader = open_reader(folder)
        self._has_ballast = take_ballast(folder)
        self.commits = 0
        self.fault: str | None = None if self._has_ballast else "disk: no room"
        """What is wrong with the disk, in words for the operator."""

    def close(self) -> None:
        """After ``run`` has ended."""
        self._thread.shutdown()
        self._reader.close()
        self._connection.close()

    def read(self, query: str, *values: str | int) -> list[Any]:
        """What cannot be read now reads as empty."""
        return self.try_to_read(query, *values) or []

    def try_to_read(self, query: str, *values: str | int) -> list[Any] | None:
        """``None`` where the disk fails. A file that is spoilt is set aside, and reads as empty."""
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            self.fault = f"disk: {error}"
            log.error("the spool cannot be read now: %s", error)  # noqa: TRY400 (no defect)
            return None
        except sqlite3.DatabaseError as error:
            self._unreadable = error
            self._there_are.set()
        return []

    def write_now(self, *writes: Write) -> None:
        """Before ``run`` runs, in the caller's thread. Raises ``sqlite3.Error``."""
        try:
            self._commit(list(writes))
        except sqlite3.DatabaseError as error:
            self._face(error)
            self._commit(list(writes))

    def write(self, write: Write, *, at_once: bool = True) -> None:
        """Write with the next commit, which is at once or when something else needs it."""
        self._writes.append(write)
        if at_once:
            self._there_are.set()

    @property
    def no_room(self) -> DiskFull | None:
        """Why no prompt can be taken, while that is so."""
        if self._has_ballast:
            return None
        free_bytes = shutil.disk_usage(self._folder).free
        return DiskFull(
            f"this node's disk has no room for more prompts ({self.fault}); those that it has are "
            "answered; free some, or ask another node",
            retry_after_s=TIDY_EVERY_S,
            details={"available": free_bytes, "needed": BALLAST_BYTES},
        )

    async def run(self) -> None:
        """Commit what comes, and tidy once a minute."""
        while True:
            wait_s = TIDY_EVERY_S if self._has_ballast else LOOK_FOR_ROOM_S
            # Not wait_for, which in Python 3.11 can swallow that we are cancelled.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._there_are.wait()
            if not self._has_ballast:
                await self._look_for_room()
            await self._commit_all()

    async def _look_for_room(self) -> None:
        # Twice as much, since what the ballast left is there for the answers.
        if shutil.disk_usage(self._folder).free < 2 * BALLAST_BYTES:
            return
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._thread, take_ballast, self._folder):
            log.warning("the disk has room again: prompts are taken")
            self._has_ballast, self.fault = True, None

    async def flush(self) -> None:
        """Until all that came so far is written; only while ``run`` runs."""
        self._written.clear()
        self._there_are.set()
        await self._written.wait()

    async def _commit_all(self) -> None:
        self._there_are.clear()
        writes, self._writes = self._writes, []
        if time.monotonic() - self._tidied_s >= TIDY_EVERY_S:
            self._tidied_s = time.monotonic()
            writes.append(Write(self._erase, is_promised=False))
        error: Exception | None
        error, self._unreadable = self._unreadable, None
        if error is None:
            error = await self._try(writes)
        if error is None:
            if writes and self._has_ballast:
                self.fault = None
            for write in writes:
                write.tell(None)
        else:
            self._face(error)
            await self._commit_one_by_one(writes)
        if not self._there_are.is_set():
            self._written.set()

    async def _commit_one_by_one(self, writes: list[Write]) -> None:
        """What cannot be written must not keep the rest from being."""
        again: list[Write] = []
        for write in writes:
            if not write.is_promised and self.no_room is not None:
                write.tell(self.no_room)
                continue
            error = await self._try([write])
            if error is None:
                write.tell(None)
            elif isinstance(error, sqlite3.OperationalError) and write.is_promised:
                again.append(write)
            else:
                log.error("a defect of edged: the spool cannot take a write", exc_info=error)
                write.tell(InternalFailure("edged failed at this prompt; its log says how"))
        if again:
            self._writes = again + self._writes
            self._there_are.set()
            await asyncio.sleep(RETRY_S)

    async def _try(self, writes: list[Write]) -> Exception | None:
        if not writes:
            return None
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._commit, writes)
        except Exception as error:  # noqa: BLE001 (looked at by the caller)
            return error
        return None

    def _commit(self, writes: list[Write]) -> None:
        """In the thread; after what it raises, nothing of it is written."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for write in writes:
                write.run(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        self.commits += 1
        if self._has_erased:
            self._has_erased = False
            # SQLite's log holds what was erased until it is cut; if not now, next time.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _erase(self, connection: sqlite3.Connection) -> None:
        self._has_erased = self._tidy(connection) or self._has_erased

    def _face(self, error: Exception) -> None:
        """Of an error of the disk or the file; of another nothing is to be done here."""
        if isinstance(error, sqlite3.OperationalError):
            if self._has_ballast:
                log.error("the spool cannot be written: %s; no more prompts are taken", error)
            self.fault = f"disk: {error}"
            self._has_ballast = False
            drop_ballast(self._folder)
        elif type(error) is sqlite3.DatabaseError:
            self._reader.close()
            self._connection.close()
            set_aside(self._folder, str(error))
            self._connection, self._reader = open_database(self._folder), open_reader(self._folder)
            self._tidied_s = float("-inf")  # the new file does not know the time yet
