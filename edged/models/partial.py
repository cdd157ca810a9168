"""What has arrived of a pull that did not end: ``.partial/`` in the store's folder.

The content lies in ``<key>.gguf``, what is known of it in ``<key>.json``; the key stands for
where it comes from. One process at a time may write there.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from edged.errors import PullError
from edged.models.whole import write_whole

_FOLDER: Final = ".partial"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Record(BaseModel):
    """What the content is part of; ``version`` is what both halves of it must share."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    source: str
    version: str | None
    size_bytes: int | None
    boot_id: str
    sha256: str | None = None
    """Of the content, once it has been verified."""


@dataclass(frozen=True)
class Partial:
    """One of them; ``content`` and ``note`` need not exist."""

    content: Path
    note: Path

    @property
    def arrived_bytes(self) -> int:
        try:
            return self.content.stat().st_size
        except OSError:
            return 0

    @property
    def record(self) -> Record | None:
        try:
            return Record.model_validate_json(self.note.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, record: Record) -> None:
        write_whole(self.note, record.model_dump_json())

    def drop(self) -> None:
        # In this order, since content without a note cannot be listed.
        self.content.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def partial_of(store: Path, source: str) -> Partial:
    """What has arrived of ``source``."""
    key = hashlib.sha256(source.encode()).hexdigest()[:16]
    folder = store / _FOLDER
    return Partial(folder / f"{key}.gguf", folder / f"{key}.json")


def partials(store: Path) -> list[tuple[Partial, Record]]:
    """All that is half there and whose note can be read."""
    found = []
    for note in sorted((store / _FOLDER).glob("[!.]*.json")):
        partial = Partial(note.with_suffix(".gguf"), note)
        if record := partial.record:
            found.append((partial, record))
    return found


def forget(store: Path, name: str) -> bool:
    """Deletes what has half arrived to be called ``name``; whether there was any."""
    found = [partial for partial, record in partials(store) if record.name == name]
    if found:
        with exclusive(store, f"edged models rm {name}"):
            for partial in found:
                partial.drop()
    return bool(found)


def boot_id() -> str:
    """Tells this boot from any other: what was not synced is whole only within one."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def exclusive(store: Path, what: str) -> Iterator[None]:
    """Nobody else changes what is half there meanwhile; raises ``PullError`` who does already."""
    path = store / _FOLDER / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as e:
        raise PullError(
            f"the store {store} cannot be written: {e.strerror}; choose another with model.store, "
            "or run as who owns it",
        ) from e
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read(1000).strip() or "another process"
            raise PullError(
                f"the store {store} is being written by {holder}; wait for it to end",
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} ({what})")
        lock.flush()
        yield
