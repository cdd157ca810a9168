"""The daemon as it is, with a book of what it hands to the worker and of the ends it commits.

``python -m benchmarks.chaos.recorded_daemon FILE`` is ``edged run`` but for a line of JSON in FILE
for each prompt that the worker is given, and for each answer once it is on disk. The worker rests
between its steps as on a hot board: else the bundled model's answers are over before anything can
happen to them.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from edged import daemon
from edged.engine.frames import Submit
from edged.engine.handle import EngineHandle, Loads
from edged.errors import PromptFailure
from edged.messages import Pace, Prompt
from edged.settings import SessionSettings, SpoolSettings, load_settings
from edged.spool.sessions import NewTurn
from edged.spool.spool import Ended, Kept, Spool
from edged.spool.writer import Then

DUTY = 0.05
"""Of the time, how much the worker decodes: a step of 2 ms comes 25 times a second."""


class _Book:
    """Lines of a file; each is with the kernel, and outlives us, when ``note`` returns."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._keys: dict[int, tuple[str, str]] = {}
        out.write("\n")  # the one before may have been killed in the middle of a line
        out.flush()

    def know(self, number: int, key: tuple[str, str]) -> None:
        """Whose prompt has this number."""
        self._keys[number] = key

    def forget(self, number: int) -> None:
        """That number is not used any more."""
        self._keys.pop(number, None)

    def note(self, what: str, number: int) -> None:
        """Something has happened to a prompt."""
        client, prompt_id = self._keys[number]
        line = {"what": what, "client": client, "id": prompt_id, "number": number}
        line |= {"pid": os.getpid(), "at_s": time.monotonic()}
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


class _Spool(Spool):
    """Notes the ends that are on disk, and learns which number is whose."""

    book: _Book

    def __init__(self, folder: Path, limits: SpoolSettings, session: SessionSettings) -> None:
        super().__init__(folder, limits, session)

    def recover(self) -> list[Kept]:
        kept = super().recover()
        for each in kept:
            self.book.know(each.number, each.prompt.key)
        return kept

    def accept(self, number: int, prompt: Prompt, address: str, then: Then) -> None:
        self.book.know(number, prompt.key)

        def told(failure: PromptFailure | None) -> None:
            then(failure)
            if failure is not None:
                self.book.forget(number)

        super().accept(number, prompt, address, told)

    def finish(self, prompt: Prompt, ended: Ended, turn: NewTurn | None, then: Then) -> None:
        self.book.know(ended.number, prompt.key)

        def told(failure: PromptFailure | None) -> None:
            if failure is None:
                self.book.note("committed", ended.number)
            self.book.forget(ended.number)
            then(failure)

        super().finish(prompt, ended, turn, told)


class _Handle(EngineHandle):
    """Notes what goes down, and slows it."""

    book: _Book

    def __init__(self, loads: Loads) -> None:
        super().__init__(loads)
        self.pace(Pace())

    def pace(self, pace: Pace) -> None:
        super().pace(replace(pace, duty_decode=min(DUTY, pace.duty_decode)))

    def submit(self, command: Submit) -> None:
        self.book.note("submitted", command.job)
        super().submit(command)


def serve(file: str, run: Callable[[], None]) -> None:
    """Run the daemon with a book."""
    # A stepped clock is for us alone: libfaketime breaks the sleep of the worker's Python.
    os.environ.pop("LD_PRELOAD", None)
    with open(file, "a", encoding="utf-8") as out:  # noqa: PTH123 (imports nothing more)
        _Spool.book = _Handle.book = _Book(out)
        daemon.Spool = _Spool  # type: ignore[attr-defined, misc]
        daemon.EngineHandle = _Handle  # type: ignore[attr-defined, misc]
        run()


if __name__ == "__main__":
    serve(sys.argv[1], lambda: daemon.run(load_settings()))
