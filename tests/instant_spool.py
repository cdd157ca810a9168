"""A spool without a disk, for tests of what stands on it."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from edged.errors import DiskFull, PromptFailure
from edged.messages import Prompt
from edged.settings import SessionSettings, SpoolSettings
from edged.spool.sessions import NewTurn, Turn
from edged.spool.spool import Ended, Kept
from edged.spool.writer import Then


@dataclass
class Row:
    """What is kept of a prompt."""

    number: int
    prompt: Prompt
    address: str
    restarts: int = 0
    deaths: int = 0
    ended: Ended | None = None
    is_delivered: bool = False


class InstantSpool:
    """Commits at once, or with ``commit`` where the test makes it ``is_slow``."""

    def __init__(self, session: SessionSettings | None = None) -> None:
        self.limits, self.session_limits = SpoolSettings(), session or SessionSettings()
        self.last_number = 0
        self.fault: str | None = None
        self.no_room: DiskFull | None = None
        self.is_slow = False
        self.failure: PromptFailure | None = None
        """Why prompts cannot be written, where the test says so."""
        self.rows: dict[tuple[str, str], Row] = {}
        self.said: dict[tuple[str, str], list[Turn]] = {}
        self.age_s = 0.0
        self._due: list[Callable[[], None]] = []

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def flush(self) -> None:
        self.commit()

    def close(self) -> None: ...

    def commit(self) -> None:
        """Write what waits, in order."""
        due, self._due = self._due, []
        for write in due:
            write()

    def recover(self) -> list[Kept]:
        open_rows = sorted(self._open(), key=lambda row: row.number)
        for row in open_rows:
            row.restarts += 1
        return [
            Kept(row.number, row.prompt, row.address, row.restarts, row.deaths, self.age_s)
            for row in open_rows
        ]

    def find(self, key: tuple[str, str]) -> Ended | None:
        row = self.rows.get(key)
        return None if row is None else row.ended

    def undelivered(self, but: Collection[int], count: int) -> list[Ended]:
        waiting = [row for row in self.rows.values() if row.ended and not row.is_delivered]
        return [row.ended for row in waiting if row.ended and row.number not in but][:count]

    def turns(self, client: str, session: str) -> list[Turn]:
        return list(self.said.get((client, session), []))

    def accept(self, number: int, prompt: Prompt, address: str, then: Then) -> None:
        def run() -> None:
            if self.failure is None:
                self.rows[prompt.key] = Row(number, prompt, address)
            then(self.failure)

        self._write(run)

    def finish(self, prompt: Prompt, ended: Ended, turn: NewTurn | None, then: Then) -> None:
        def run() -> None:
            row = self.rows.setdefault(prompt.key, Row(ended.number, prompt, ended.address))
            row.ended = replace(ended, number=row.number)
            if turn is not None:
                said = self.said.setdefault((turn.client, turn.session), [])
                said[:] = [each for each in said if each.number >= turn.since] + [turn.turn]
            then(None)

        self._write(run)

    def note(self, number: int, restarts: int, deaths: int, then: Then) -> None:
        def run() -> None:
            for row in self.rows.values():
                if row.number == number:
                    row.restarts, row.deaths = restarts, deaths
            then(None)

        self._write(run)

    def delivered(self, number: int, then: Then) -> None:
        def run() -> None:
            for row in self.rows.values():
                row.is_delivered |= row.number == number
            then(None)

        self._write(run)

    def _open(self) -> list[Row]:
        return [row for row in self.rows.values() if row.ended is None]

    def _write(self, run: Callable[[], None]) -> None:
        self._due.append(run)
        if not self.is_slow:
            self.commit()
