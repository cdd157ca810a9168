"""What systemd is told of the daemon, by the protocol of sd_notify(3).

Nothing is sent where nobody listens: without ``$NOTIFY_SOCKET`` nothing here does anything.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

BEAT_S: Final = 10.0
"""How often the event loop shows that it turns; oftener where the watchdog wants it."""
EXTEND_S: Final = 3 * BEAT_S
"""How much time is asked for, again and again, while the last answers go out."""
STATUS_LONGEST_BYTES: Final = 1024
"""systemd drops a whole message of more than 4096."""


class Supervisor:
    """Whoever supervises the daemon: systemd, or nobody. Nothing here raises."""

    def __init__(self) -> None:
        self._send = _sender()
        self._watchdog_s = _watchdog_s()
        self._status = ""
        self._is_stopping = False
        self._is_heard = True

    def ready(self) -> None:
        """The daemon has started, or has read its settings again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The settings are being read again; ``ready`` follows."""
        # The time is what Type=notify-reload (253) compares; older ones pass over it.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows: one line; sent only if it has changed."""
        line = "".join(each if each.isprintable() else " " for each in text)
        line = line.encode()[:STATUS_LONGEST_BYTES].decode(errors="ignore")
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line}")

    def stopping(self) -> None:
        """The daemon ends; from now on ``watch`` asks for time, too."""
        self._is_stopping = True
        self._tell("STOPPING=1", _EXTENSION)

    async def watch(self) -> None:
        """Show that the event loop turns, until cancelled: one that hangs is ended by systemd.

        Of the worker it says nothing: that is the daemon's to watch.
        """
        if self._send is None:
            await asyncio.Event().wait()
        every_s = BEAT_S if self._watchdog_s is None else min(BEAT_S, self._watchdog_s / 2)
        while True:
            if self._watchdog_s is not None:
                self._tell("WATCHDOG=1")
            if self._is_stopping:
                self._tell(_EXTENSION)
            await asyncio.sleep(every_s)

    def _tell(self, *assignments: str) -> None:
        if self._send is None:
            return
        was_heard = self._is_heard
        try:
            self._send("\n".join(assignments))
        except OSError as error:
            self._is_heard = False
            if was_heard:
                log.warning("systemd cannot be told %s: %s", assignments[0], error.strerror)
        else:
            self._is_heard = True


_EXTENSION: Final = f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1e6:.0f}"


def _sender() -> Callable[[str], object] | None:
    """By systemd's own library where it is installed; ``None`` where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    try:
        from systemd.daemon import notify  # noqa: PLC0415 (an optional package)
    except ImportError:
        return _send_plainly
    return notify  # type: ignore[no-any-return]


def _send_plainly(message: str) -> None:
    """One datagram. Raises ``OSError``, also where it would have to wait."""
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):  # a name of Linux's abstract ones, which begin with a zero byte
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)
        sending.sendto(message.encode(), address)


def _watchdog_s() -> float | None:
    """How soon systemd wants to hear from this process; ``None`` where it does not."""
    try:
        limit_us = int(os.environ.get("WATCHDOG_USEC", ""))
        pid = int(os.environ.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return limit_us / 1e6 if limit_us > 0 and pid == os.getpid() else None
