"""A wall clock of the daemon's own (libfaketime): the system's stays as it is."""

from pathlib import Path

STEP_S = 3600
_LIBRARY = "faketime/libfaketimeMT.so.1"


def library() -> Path | None:
    """Where libfaketime is."""
    folders = [*Path("/usr/lib").glob("*"), Path("/usr/lib"), Path("/usr/local/lib")]
    return next((each / _LIBRARY for each in folders if (each / _LIBRARY).exists()), None)


def missing() -> str | None:
    """Why there can be no such clock here."""
    return None if library() else "needs libfaketime (package libfaketime)"


class SteppedClock:
    """An offset in a file that the library looks at once a second."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime"
        self.offset_s = 0
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes that are to see it; their monotonic clocks are the system's."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, by_s: int) -> None:
        """Forward, or back."""
        self.offset_s += by_s
        self._write()

    def forget(self, pid: int) -> None:
        """Remove what the library leaves in shared memory where its process is killed."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            (Path("/dev/shm") / name).unlink(missing_ok=True)  # noqa: S108 (the library's own)

    def _write(self) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(f"{self.offset_s:+d}\n")
        part.replace(self._file)
