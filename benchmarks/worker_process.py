"""A real worker process at the other end of a socket pair, spoken to as the daemon does."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Self

from edged.engine.frames import LENGTH, Down, Frame, Load, LoadFailed, Ready, decode, encode
from edged.engine.handle import WORKER_ENVIRONMENT

WORKER = ("-m", "edged.engine.worker")


class WorkerProcess:
    """One that has loaded; ends when the ``with`` block does."""

    def __init__(self, load: Load, program: Sequence[str] = WORKER) -> None:
        """``program``: what Python is to run. Raises ``RuntimeError`` where it does not load."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *program, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=WORKER_ENVIRONMENT | os.environ,
                stderr=subprocess.DEVNULL,
            )
        self._socket = ours
        self._reader = ours.makefile("rb")
        self.send(load)
        while not isinstance(ready := self.receive(), Ready):
            pass
        self.ready = ready

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, frame: Down) -> None:
        """Hand a frame down."""
        self._socket.sendall(encode(frame))

    def receive(self) -> Frame:
        """The next frame. Raises ``RuntimeError`` where the worker has ended or cannot load."""
        head = self._reader.read(LENGTH.size)
        if len(head) < LENGTH.size:
            raise RuntimeError(f"the worker ended with exit code {self._process.wait()}")
        frame = decode(self._reader.read(LENGTH.unpack(head)[0]))
        if isinstance(frame, LoadFailed):
            raise RuntimeError(frame.error)  # noqa: TRY004 (a frame, not an argument)
        return frame

    def close(self) -> None:
        """The worker ends with its socket."""
        self._reader.close()
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
