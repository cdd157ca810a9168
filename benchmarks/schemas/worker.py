"""A real worker process with the bundled model, spoken to as the daemon does."""

import contextlib
import os
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from edged.engine.frames import (
    LENGTH,
    Finished,
    Frame,
    Load,
    LoadFailed,
    Piece,
    Ready,
    Refused,
    Submit,
    decode,
    encode,
)
from edged.engine.handle import WAITING
from edged.models.bundled import BUNDLED_MODEL

CTX = 1024
SLOTS = 4


@dataclass(frozen=True)
class Answer:
    """How a job ended; ``text`` is all that it said."""

    job: int
    text: str
    end: Finished | Refused


class Worker:
    """One worker that has loaded."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edged.engine.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=WAITING | os.environ,
                stderr=subprocess.DEVNULL,
            )
        self._socket = ours
        self._reader = ours.makefile("rb")
        self._texts: dict[int, str] = defaultdict(str)
        threads = len(os.sched_getaffinity(0))
        load = Load("llama_cpp", str(BUNDLED_MODEL), "", CTX, SLOTS, threads, 0)
        self._socket.sendall(encode(load))
        while not isinstance(self._receive(), Ready):
            pass

    def submit(self, command: Submit) -> None:
        """Start a job; no more than there are slots."""
        self._socket.sendall(encode(command))

    def next_answer(self) -> Answer:
        """The job that ends next. Raises ``RuntimeError`` where the worker has ended."""
        while True:
            frame = self._receive()
            if isinstance(frame, Piece):
                self._texts[frame.job] += frame.text
            elif isinstance(frame, Refused):
                return Answer(frame.job, self._texts.pop(frame.job, ""), frame)
            elif isinstance(frame, Finished):
                return Answer(frame.job, self._texts.pop(frame.job, "") + frame.text, frame)

    def close(self) -> None:
        """The worker ends with its socket."""
        self._reader.close()
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _receive(self) -> Frame:
        head = self._reader.read(LENGTH.size)
        if len(head) < LENGTH.size:
            raise RuntimeError(f"the worker ended with exit code {self._process.wait()}")
        frame = decode(self._reader.read(LENGTH.unpack(head)[0]))
        if isinstance(frame, LoadFailed):
            raise RuntimeError(frame.error)  # noqa: TRY004 (a frame, not an argument)
        return frame


@contextlib.contextmanager
def running() -> Iterator[Worker]:
    """A worker, ended when the block ends."""
    worker = Worker()
    try:
        yield worker
    finally:
        worker.close()
