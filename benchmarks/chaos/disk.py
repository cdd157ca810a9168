"""A disk of the daemon's own, small enough to be filled."""

import contextlib
import os
import subprocess
import threading
from pathlib import Path

DISK_MIB = 24
_REFILL_S = 0.2
_PIECES = (1 << 20, 1 << 16, 1 << 12, 1)


class SmallDisk:
    """A tmpfs, and a neighbour who fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        self._goes_on = threading.Event()
        self._thread: threading.Thread | None = None

    def mount(self) -> None:
        """Raises ``subprocess.CalledProcessError``."""
        self.folder.mkdir()
        size = f"size={DISK_MIB}m,mode=0700"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "edged-chaos", str(self.folder)],
            check=True,
            capture_output=True,
        )

    def unmount(self) -> None:
        """Also where it is in use."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)

    def fill(self, *, again: bool) -> None:
        """To the last byte; what becomes free later ``again``, too."""
        self._take_all()
        if again:
            self._goes_on.set()
            self._thread = threading.Thread(target=self._refill, name="filler", daemon=True)
            self._thread.start()

    def free(self) -> None:
        """The neighbour leaves."""
        self._goes_on.clear()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._filler.unlink(missing_ok=True)

    def _refill(self) -> None:
        pause = threading.Event()
        while self._goes_on.is_set():
            self._take_all()
            pause.wait(_REFILL_S)

    def _take_all(self) -> None:
        file = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for piece in _PIECES:
                with contextlib.suppress(OSError):
                    while os.write(file, b"\xff" * piece) == piece:
                        pass
        finally:
            os.close(file)
