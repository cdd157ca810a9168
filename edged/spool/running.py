"""One daemon a state directory, found by its process id; and whether the last one stopped well."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from edged.errors import ConfigError

_FILE: Final = "daemon.pid"
_TRIES: Final = 5
_TRY_S: Final = 0.05


class Running:
    """Held by a daemon from its start to its clean stop.

    The file stays where the process dies, without its lock: that is how the next one knows.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _FILE
        self._file: TextIO | None = None

    def begin(self) -> bool:
        """Take the state directory; whether the last daemon left it without a clean stop.

        Raises ``ConfigError`` where another daemon holds it, or it cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unclean = self._path.exists()
            file = self._path.open("a+", encoding="ascii")
            is_ours = _locked(file)
            if is_ours and not self._is_still(file):  # the one before has just ended
                file.close()
                return self.begin()
        except OSError as error:
            raise ConfigError(
                f"state_dir: {self._path.parent} cannot be written: {error.strerror}; make it, or "
                "set another"
            ) from None
        if not is_ours:
            with file:
                file.seek(0)
                other = file.read().strip()
            raise ConfigError(
                f"state_dir: another daemon (process {other}) uses "
                f"{self._path.parent}; stop it, or set another state_dir for this one"
            )
        file.truncate(0)
        with contextlib.suppress(OSError):  # a full disk: the lock is what counts
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        self._file = file
        return unclean

    def _is_still(self, file: TextIO) -> bool:
        """Whether the file is the one under its name."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def end(self) -> None:
        """A clean stop."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


@contextlib.contextmanager
def running(state_dir: Path) -> Iterator[bool]:
    """Hold the state directory; gives whether the last daemon's process died there."""
    held = Running(state_dir)
    unclean = held.begin()
    try:
        yield unclean
    finally:
        held.end()


def _locked(file: TextIO) -> bool:
    """Tries for a moment, since who looks for a running daemon holds the lock as briefly."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(_TRY_S)
        else:
            return True
    return False


def running_pid(state_dir: Path) -> int | None:
    """The daemon that holds this state directory; ``None`` when none does."""
    try:
        with (state_dir / _FILE).open(encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                text = file.read().strip()
                return int(text) if text.isdecimal() else None
    except OSError:
        return None
    return None
