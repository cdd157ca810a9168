"""The daemon's hold on its worker: start it, feed it, watch it, replace it when it dies.

Imports no inference library and no numpy: the daemon stays small and alive whatever the
worker does.
"""

import asyncio
import contextlib
import logging
import os
import platform
import random
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from edged.engine.frames import (
    LENGTH,
    Cancel,
    Down,
    Finished,
    ForgetPrefixes,
    Heartbeat,
    Load,
    LoadFailed,
    Piece,
    Ready,
    Refused,
    Submit,
    decode,
    encode,
)
from edged.errors import EdgedError, EngineFailed, OutOfMemory, PromptFailure
from edged.messages import Pace

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 60.0
MEMORY_LOOK_S = 5.0
"""How often to look whether the memory that was missing has returned."""
# A worker that served this long starts with a clean record.
PROVEN_S = 60.0
STALL_FACTOR = 10.0
STALL_MIN_S = 30.0
"""A prediction of milliseconds says nothing about a machine that swaps or is suspended."""
WATCH_S = 1.0
LOAD_MIN_S = 180.0
LOAD_BYTES_PER_S = 5e6
"""Of the slowest card that weights may come from, and a conversion on it."""
LAST_WORDS_LINES = 20
WORKER_ENVIRONMENT = {
    "GOMP_SPINCOUNT": "1000" if platform.machine() == "x86_64" else "10000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What the worker is started with, unless the operator has set it.

How often a thread looks for the others before it sleeps: some 40 microseconds. A step's threads
meet a thousand times. Looking longer gains nothing on an idle machine, and on a busy one takes the
core from the thread that is waited for (Phi-3-mini's shape, 2 threads, one of 2 cores kept busy,
tokens/s: libgomp's default 4.3 to 5.6, 10,000 looks 3.5 to 4.4, 1,000 7.3 to 7.8, none 8.5; idle
14.8, 14.4 to 16.2, 14.7 to 16.0, 12.3 to 12.9). A look takes longer on x86, whose pause instruction
waits for dozens of cycles; for Arm derived.

Weights in huge pages (glibc from 2.35; older ones pass over it), where the kernel leaves that to
programs (``madvise``, as Debian's does): a token walks through all of them, and 2 GB are 550,000
small pages (the same shape, 1 thread, processor time of a token: 130 ms instead of 135).
"""


class ModelState(StrEnum):
    """What the model is doing, as the retained state says it."""

    LOADING = "loading"
    SERVING = "serving"
    SWITCHING = "switching"
    UNLOADED = "unloaded"
    REFUSED = "refused"


class EngineListener(Protocol):
    """Whoever wants the worker's frames: the pipeline."""

    def engine_ready(self, ready: Ready) -> None: ...
    def engine_frame(self, frame: Piece | Finished | Refused) -> None: ...
    def engine_lost(self, reason: str) -> None: ...
    def engine_refused(self, failure: PromptFailure) -> None: ...
    def engine_unloaded(self) -> None: ...


class Loads(Protocol):
    """Where the handle learns what to load: ``edged.engine.supply``."""

    async def next_load(self) -> Load:
        """Raises ``OutOfMemory`` for now, another ``EdgedError`` for good."""
        ...

    def served(self) -> None:
        """What was loaded serves."""
        ...

    def failed(self, reason: str, load: Load | None, *, died: bool = False) -> bool:
        """What was to be loaded is not served; whether there is another to try at once.

        ``load`` is ``None`` where there was no plan; ``died`` tells a worker that ended without
        a word from one that refused.
        """
        ...


@dataclass(frozen=True)
class _End:
    """How a worker ended, or why there was none."""

    reason: str
    refusal: PromptFailure | None = None
    """Given where trying again at once would say the same."""
    served: bool = False
    load: Load | None = None


@dataclass
class _Life:
    """What one worker has shown of itself."""

    last_heard_s: float
    ready: bool = False
    load_error: str | None = None
    kill_reason: str | None = None
    step_age_s: float | None = None
    step_predicted_s: float = 0.0


class EngineHandle:
    """One worker at a time, for as long as ``run`` runs."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._writer: asyncio.StreamWriter | None = None
        self._listener: EngineListener | None = None
        self.ready: Ready | None = None
        self.state = ModelState.LOADING
        self.reason: str | None = None
        """Why the model is refused, or why the last worker ended."""
        self.refusal: PromptFailure | None = None
        """What a prompt is answered while ``state`` is ``REFUSED``."""
        self.pid: int | None = None
        self.starts = 0
        self.load_s = 0.0
        """How long the last load took."""
        self._again = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._process: asyncio.subprocess.Process | None = None
        self._pace = Pace()

    def pace(self, pace: Pace) -> None:
        """How hard to work, for this worker and those after it."""
        if pace != self._pace:
            self._pace = pace
            self._send(pace)

    def forget_prefixes(self) -> None:
        """Give up what is kept for prompts that may come."""
        self._send(ForgetPrefixes())

    def unload(self, reason: str) -> None:
        """End the worker at once, and start none until ``load``."""
        if self._wanted.is_set():
            self._wanted.clear()
            self.reason = reason
            self._again.set()  # a pause between two tries ends, too
            if self._process is not None:
                _kill(self._process)

    def load(self) -> None:
        """Have a worker again."""
        self._wanted.set()

    @property
    def is_unloaded(self) -> bool:
        """Whether ``unload`` was called last."""
        return not self._wanted.is_set()

    def refuse(self, failure: PromptFailure) -> None:
        """Answer prompts with this until there is a worker again; only while unloaded."""
        assert self._listener is not None
        self.reason, self.refusal, self.state = failure.error, failure, ModelState.REFUSED
        self._listener.engine_refused(failure)

    def hold(self) -> None:
        """Take no more prompts until another model serves; who is being answered goes on."""
        self.ready = None
        self.state = ModelState.SWITCHING

    def restart(self) -> None:
        """End the worker, and start one with what is to be loaded now."""
        self._again.set()
        if self._writer is not None:
            self._writer.close()

    def submit(self, command: Submit) -> None:
        """Hand a prompt down; only while ``state`` is ``SERVING``."""
        self._send(command)

    def cancel(self, command: Cancel) -> None:
        """Ask for the end of a job; the answer is its ``Finished``."""
        self._send(command)

    def _send(self, command: Down) -> None:
        if self._writer is not None:
            self._writer.write(encode(command))

    async def run(self, listener: EngineListener) -> None:
        """Keep a worker alive until cancelled; then end it."""
        self._listener = listener
        backoff_s = BACKOFF_FIRST_S
        while True:
            if not self._wanted.is_set():
                self.state = ModelState.UNLOADED
                listener.engine_unloaded()
                await self._wanted.wait()
                self.state, self.reason, self.refusal = ModelState.LOADING, None, None
            began_s = time.monotonic()
            self._again.clear()
            end = await self._one()
            if self._again.is_set():  # it was to end: another is to be loaded, or none
                continue
            listener.engine_lost(end.reason)
            died = end.refusal is None
            if not end.served and self._loads.failed(end.reason, end.load, died=died):
                continue
            if time.monotonic() - began_s > PROVEN_S and end.refusal is None:
                backoff_s = BACKOFF_FIRST_S
            if end.refusal is not None:
                backoff_s = BACKOFF_MAX_S
            pause_s = backoff_s * random.uniform(0.8, 1.2)
            if isinstance(end.refusal, OutOfMemory):
                pause_s = MEMORY_LOOK_S
            if end.refusal is None or _cause(end.refusal) != _cause(self.refusal):
                log.error(
                    "the model is not served: %s; trying again in %.1f s", end.reason, pause_s
                )
            self.reason, self.refusal = end.reason, end.refusal
            self.state = ModelState.LOADING
            if end.refusal is not None:
                self.state = ModelState.REFUSED
                listener.engine_refused(end.refusal)
            # Not wait_for, which in Python 3.11 can swallow that we are cancelled.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._again.wait()
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _one(self) -> _End:
        """One worker, if there is something for it to load."""
        try:
            load = await self._loads.next_load()
        except OutOfMemory as failure:
            return _End(failure.error, failure)
        except EdgedError as error:
            return _refused(str(error))
        if self._again.is_set():
            return _End("another model was chosen meanwhile")
        return replace(await self._live_once(load), load=load)

    async def _live_once(self, load: Load) -> _End:
        """One worker from start to end."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "edged.engine.worker",
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env=WORKER_ENVIRONMENT | os.environ,
                )
            except OSError as error:  # most likely no memory, of which there may be more soon
                ours.close()
                return _End(f"the worker cannot be started: {error.strerror or error}")
        reader, writer = await asyncio.open_connection(sock=ours)
        self._writer = writer
        if self._again.is_set():
            writer.close()
        self.pid, self._process = process.pid, process
        self.starts += 1
        life = _Life(last_heard_s=time.monotonic())
        last_words: deque[str] = deque(maxlen=LAST_WORDS_LINES)
        assert process.stderr is not None
        listening = asyncio.create_task(_log_lines(process.stderr, last_words), name="worker-log")
        limit_s = LOAD_MIN_S + _size_bytes(load.model_path) / LOAD_BYTES_PER_S
        watching = asyncio.create_task(self._watch(process, life, limit_s), name="worker-watch")
        try:
            self._send(load)
            self._send(self._pace)
            await self._read(reader, life)
            # Nothing more is handed to it: who waits is answered by its successor.
            self._writer = self.ready = None
            status = await process.wait()
            await listening
        finally:
            self._writer = None
            self.ready = None
            self.pid = self._process = None
            watching.cancel()
            writer.close()
            await _end(process)
            listening.cancel()
        if life.load_error is not None:
            return _refused(life.load_error)
        if last_words:
            # For the log alone: it may name paths, and reasons are published.
            log.error("the worker's last words: %s", " | ".join(last_words))
        return _End(life.kill_reason or _describe(status), served=life.ready)

    async def _read(self, reader: asyncio.StreamReader, life: _Life) -> None:
        assert self._listener is not None
        while True:
            try:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                frame = decode(await reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if self._again.is_set():
                return  # its successor answers for all that comes now
            life.last_heard_s = time.monotonic()
            match frame:
                case Piece() | Finished() | Refused():
                    self._listener.engine_frame(frame)
                case Heartbeat():
                    life.step_age_s = frame.step_age_s
                    life.step_predicted_s = frame.step_predicted_s
                case Ready():
                    life.ready = True
                    self.ready = frame
                    self.state = ModelState.SERVING
                    self.reason = self.refusal = None
                    self.load_s = frame.load_s
                    self._loads.served()
                    self._listener.engine_ready(frame)
                case LoadFailed():
                    life.load_error = frame.error

    async def _watch(
        self, process: asyncio.subprocess.Process, life: _Life, load_limit_s: float
    ) -> None:
        """End a worker that no longer gets anywhere."""
        began_s = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_S)
            if not life.ready and time.monotonic() - began_s > load_limit_s:
                life.kill_reason = (
                    f"the worker had not loaded the model after {load_limit_s:.0f} s and was ended"
                )
            silent_s = time.monotonic() - life.last_heard_s
            # Importing and loading hold the interpreter for long; only a live worker must beat.
            if life.ready and silent_s > STALL_MIN_S:
                life.kill_reason = f"the worker said nothing for {silent_s:.0f} s and was ended"
            elif life.step_age_s is not None:
                age_s = life.step_age_s + silent_s
                limit_s = max(STALL_MIN_S, STALL_FACTOR * life.step_predicted_s)
                if age_s > limit_s:
                    life.kill_reason = (
                        f"a step took {age_s:.0f} s where {life.step_predicted_s:.1f} s was "
                        "expected, and the worker was ended"
                    )
            if life.kill_reason is not None:
                _kill(process)
                return


def _cause(refusal: PromptFailure | None) -> tuple[object, ...]:
    """What is worth a line in the log when it changes; what is available always does."""
    if isinstance(refusal, OutOfMemory):
        return (refusal.code, refusal.details.get("needed"))
    return (refusal.error,) if refusal is not None else ()


def _size_bytes(path: str | None) -> int:
    try:
        return Path(path).stat().st_size if path is not None else 0
    except OSError:
        return 0


def _refused(reason: str) -> _End:
    failure = EngineFailed(f"this node's model cannot be served: {reason}", retryable=False)
    return _End(reason, failure)


async def _log_lines(stream: asyncio.StreamReader, last_words: deque[str]) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line longer than the reader's limit, which it has dropped
            continue
        if not line:
            return
        text = line.decode(errors="replace").rstrip()
        if text.strip(". "):
            last_words.append(text)
            log.info("worker: %s", text)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _kill(process)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _describe(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"the worker was ended by {name}"
    return f"the worker ended with exit code {status}"
