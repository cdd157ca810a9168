"""Where the daemon's log goes: to systemd's journal with fields, or to stderr as plain lines.

Fields of a line are what its ``extra`` has in capitals: ``EDGED_PROMPT_ID``, ``EDGED_CLIENT``,
``EDGED_LEVEL``, ``EDGED_CODE``. The text of a prompt is in none of them.
"""

import logging
import os
from typing import Any, Final

PLAIN: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
IDENTIFIER: Final = "edged"
_STDERR: Final = 2


def begin_logging(level: str) -> None:
    """Once, at the daemon's start."""
    handler = journal_handler()
    if handler is None:
        logging.basicConfig(level=level, format=PLAIN)
    else:
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler])


def journal_handler() -> logging.Handler | None:
    """One that writes to the journal; ``None`` where stderr is not connected to it.

    Also where systemd-python is missing: the journal then gets what stderr says, as text.
    """
    if not _is_journal():
        return None
    try:
        from systemd import journal  # noqa: PLC0415 (an optional package)
    except ImportError:
        return None

    def send(message: str, /, **fields: Any) -> None:
        # Of all that a record has, what the journal takes, less what the message says already.
        journal.send(
            message,
            **{
                name: value
                for name, value in fields.items()
                if name.isupper() and name != "CODE_ARGS" and value is not None
            },
        )

    handler: logging.Handler = journal.JournalHandler(
        sender_function=send, SYSLOG_IDENTIFIER=IDENTIFIER
    )
    return handler


def _is_journal() -> bool:
    """Whether stderr is the stream that systemd connected to the journal, and nobody since."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stderr = os.fstat(_STDERR)
        return (stderr.st_dev, stderr.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False
