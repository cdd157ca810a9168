"""A line a minute of the log, for what may happen a thousand times a second."""

import logging
import time
from collections.abc import Mapping

EVERY_S = 60.0


class MinuteLog:
    """Counts what happens, and says so at once and then at most once a minute.

    ``text`` has a ``%d`` for how often it happened since the last line, and a ``%s`` for what
    was told of the last time.
    """

    def __init__(self, log: logging.Logger, text: str) -> None:
        self._log = log
        self._text = text
        self._count = 0
        self._next_s = 0.0

    def count(self, what: str, extra: Mapping[str, str] | None = None) -> None:
        """It has happened; ``extra`` are fields of the line, if there will be one."""
        self._count += 1
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._log.warning(self._text, self._count, what, extra=extra)
            self._count = 0
            self._next_s = now_s + EVERY_S
