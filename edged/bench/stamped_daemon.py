"""The daemon as it is, with stamps of when a prompt went to the worker and when text came out.

``python -m edged.bench.stamped_daemon FILE`` is ``edged run`` but for a line of JSON a finished
prompt in FILE, and one for each load. ``plain`` after FILE keeps the worker from speculating. Every
process of a machine reads the same CLOCK_MONOTONIC, so a client can subtract its own.
"""

import functools
import hashlib
import json
import sys
import time
from dataclasses import asdict, replace
from typing import TextIO

from edged import daemon
from edged.engine.frames import Finished, Load, Piece, Ready, Refused, Submit
from edged.engine.handle import EngineHandle, EngineListener, Loads
from edged.errors import PromptFailure
from edged.settings import load_settings


def name_of(text: str) -> str:
    """By which a client finds the stamps of its prompt."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _Loads:
    """Keeps what the worker is told to load."""

    def __init__(self, loads: Loads, out: TextIO, *, speculates: bool) -> None:
        self._loads = loads
        self._out = out
        self._speculates = speculates

    async def next_load(self) -> Load:
        load = await self._loads.next_load()
        load = replace(load, speculates=load.speculates and self._speculates)
        print(json.dumps({"load": asdict(load)}), file=self._out, flush=True)
        return load

    def served(self) -> None:
        self._loads.served()

    def failed(self, reason: str, load: Load | None, *, died: bool = False) -> bool:
        return self._loads.failed(reason, load, died=died)


class _Listener:
    """Stamps what comes up on its way to the pipeline."""

    def __init__(self, listener: EngineListener, out: TextIO) -> None:
        self._listener = listener
        self._out = out
        self.stamps: dict[int, dict[str, object]] = {}
        """By job: of prompts in the worker."""

    def engine_ready(self, ready: Ready) -> None:
        self._listener.engine_ready(ready)

    def engine_frame(self, frame: Piece | Finished | Refused) -> None:
        match frame:
            case Piece():
                stamps = self.stamps.get(frame.job)
                if stamps is not None and "first_piece_s" not in stamps:
                    stamps["first_piece_s"] = frame.monotonic_s
                    stamps["first_piece_n"] = frame.n
            case Finished():
                if (stamps := self.stamps.pop(frame.job, None)) is not None:
                    stamps["prefill_s"] = frame.prefill_s
                    print(json.dumps({"prompt": stamps}), file=self._out, flush=True)
            case Refused():
                self.stamps.pop(frame.job, None)
        self._listener.engine_frame(frame)

    def engine_lost(self, reason: str) -> None:
        self._listener.engine_lost(reason)

    def engine_unloaded(self) -> None:
        self._listener.engine_unloaded()

    def engine_refused(self, failure: PromptFailure) -> None:
        self._listener.engine_refused(failure)


class _Handle(EngineHandle):
    """Stamps what goes down."""

    def __init__(self, loads: Loads, *, out: TextIO, speculates: bool) -> None:
        super().__init__(_Loads(loads, out, speculates=speculates))
        self._out = out
        self._stamped: _Listener | None = None

    async def run(self, listener: EngineListener) -> None:
        self._stamped = _Listener(listener, self._out)
        await super().run(self._stamped)

    def submit(self, command: Submit) -> None:
        super().submit(command)
        if self._stamped is not None:
            self._stamped.stamps[command.job] = {
                "name": name_of(command.messages[-1].content),
                "submitted_s": time.monotonic(),
            }


def main() -> None:
    """Serve until SIGTERM."""
    with open(sys.argv[1], "a", encoding="ascii") as out:  # noqa: PTH123 (imports nothing more)
        handle = functools.partial(_Handle, out=out, speculates="plain" not in sys.argv[2:])
        daemon.EngineHandle = handle  # type: ignore[attr-defined, assignment]
        daemon.run(load_settings())


if __name__ == "__main__":
    main()
