"""Memory pressure as systemd (254 and later) tells of it, between two looks at what is available.

https://systemd.io/MEMORY_PRESSURE: ``$MEMORY_PRESSURE_WATCH`` names what to wait on, usually the
``memory.pressure`` of the service's control group, and ``$MEMORY_PRESSURE_WRITE`` what to write
there first: from which share of stalled time on the kernel is to say so.
"""

import asyncio
import base64
import contextlib
import logging
import math
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

HOLDS_S: Final = 4.0
"""How long a word of it counts: two of the kernel's windows, and it speaks once in each."""
_DISCARDED_BYTES: Final = 4096


class PressureWatch:
    """Of one event loop. Nothing here raises; where nothing is to be watched, nothing is seen."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told_s = -math.inf
        self._open = contextlib.ExitStack()
        self._file: str | None = None

    @property
    def is_pressed(self) -> bool:
        """Whether the kernel has told of pressure just now."""
        return self._monotonic() - self._told_s < HOLDS_S

    def tells_of(self, path: str) -> bool:
        """Whether this file of the kernel's is waited for.

        It should not be read then: who reads it takes in what the kernel was about to tell of.
        """
        return path == self._file

    def start(self) -> None:
        """Wait for it in the running loop, if systemd has asked for that."""
        path = os.environ.get("MEMORY_PRESSURE_WATCH", "")
        if path in ("", "/dev/null"):
            return
        try:
            to_write = base64.b64decode(os.environ.get("MEMORY_PRESSURE_WRITE", ""), validate=True)
            kind = Path(path).stat().st_mode
            if stat.S_ISSOCK(kind):
                self._watch_socket(path, to_write)
            elif stat.S_ISFIFO(kind):
                # What is written there would come back to us.
                self._watch_stream(self._opened(path))
            else:
                self._watch_kernel(path, to_write)
        except (OSError, ValueError) as error:
            self.close()
            # What is available is looked at all the same.
            log.info("systemd's word of memory pressure is not waited for: %s: %s", path, error)

    def close(self) -> None:
        """Wait no more."""
        self._file = None
        self._open.close()

    def _watch_kernel(self, path: str, to_write: bytes) -> None:
        """A PSI file always reads as ready; what is news is an urgent event (POLLPRI).

        The loop knows no such events, so it gets an epoll of its own to look at.
        """
        file = self._opened(path)
        if to_write:
            os.write(file, to_write)
        urgent = self._open.enter_context(select.epoll())
        urgent.register(file, select.EPOLLPRI)

        def look() -> None:
            # That the loop was told says it all: the kernel forgets an event that was asked for.
            if any(event & select.EPOLLERR for _, event in urgent.poll(0)):
                self.close()  # the group is gone
            else:
                self._told_s = self._monotonic()

        self._watch(urgent.fileno(), look)
        self._file = path

    def _watch_socket(self, path: str, to_write: bytes) -> None:
        connection = self._open.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        connection.setblocking(False)
        connection.connect(path)
        connection.sendall(to_write)
        self._watch_stream(connection.fileno())

    def _watch_stream(self, file: int) -> None:
        def discard() -> None:
            try:
                data = os.read(file, _DISCARDED_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                self._told_s = self._monotonic()
            else:
                self.close()

        self._watch(file, discard)

    def _opened(self, path: str) -> int:
        """For writing, too: a FIFO then does not end with who wrote there last."""
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        self._open.callback(os.close, file)
        return file

    def _watch(self, file: int, seen: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(file, seen)
        self._open.callback(loop.remove_reader, file)
