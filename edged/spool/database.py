"""The spool's file: SQLite in WAL mode, one writer; what is wrong with it is set aside.

The schema only ever grows: columns and tables are added with defaults and never change their
meaning, so that after a rollback the version before can go on with the file.
"""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from edged.errors import ConfigError

log = logging.getLogger(__name__)

FILE: Final = "spool.db"
SET_ASIDE: Final = "spool.db.corrupt"
BALLAST: Final = "spool.ballast"
BALLAST_BYTES: Final = 4 * 2**20
"""Room for the answers of prompts that were accepted before the disk ran full."""
_BESIDE: Final = ("-wal", "-shm")
_OF_THE_FILE: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_READONLY,  # of its own; that of its folder is found before
)
_VERSION: Final = 1
_CACHE_KIB: Final = 256  # SQLite's default of 2 MiB is more than the daemon can spare
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS prompts (
    number INTEGER PRIMARY KEY,
    client TEXT NOT NULL,
    id TEXT NOT NULL,
    digest BLOB NOT NULL,
    address TEXT NOT NULL,
    arrived_s REAL NOT NULL,
    restarts INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    finished_s REAL,
    delivered INTEGER NOT NULL DEFAULT 0,
    prompt TEXT,
    terminal TEXT,
    UNIQUE (client, id)
);
CREATE INDEX IF NOT EXISTS finished ON prompts (finished_s) WHERE finished_s IS NOT NULL;
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY,
    client TEXT NOT NULL,
    session TEXT NOT NULL,
    said TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    at_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS conversation ON turns (client, session, number);
CREATE TABLE IF NOT EXISTS clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    spool_s REAL NOT NULL,
    boot_s REAL NOT NULL,
    wall_s REAL NOT NULL,
    boot_id TEXT NOT NULL
);
"""


def open_database(folder: Path) -> sqlite3.Connection:
    """The writer's connection, with a file that can be relied on.

    What cannot be read is renamed to ``spool.db.corrupt``, and a new file begun; on a full disk
    the ballast makes room. Raises ``ConfigError`` where the folder cannot be written.
    """
    path = folder / FILE
    try:
        return _open(path)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # whose text may be spoilt, too
        # Python has one class for a full disk and for a header that makes no sense.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _OF_THE_FILE:
            set_aside(folder, str(error))
        else:
            drop_ballast(folder)
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            f"state_dir: the spool {path} cannot be opened: {error}; check the disk's space and "
            "the folder's owner"
        ) from None


def _open(path: Path) -> sqlite3.Connection:
    try:
        # Made here, since SQLite gives a new file the umask's mode, and its log the file's.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"state_dir: {path} cannot be written: {error.strerror}") from None
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            # A commit is on the disk before anything is acknowledged, also if the power fails.
            "synchronous = FULL",
            # An answer that is erased is overwritten.
            "secure_delete = ON",
            f"cache_size = -{_CACHE_KIB}",
            "journal_size_limit = 1048576",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _check(connection)
        connection.executescript(_SCHEMA)
        if connection.execute("PRAGMA user_version").fetchone()[0] < _VERSION:
            connection.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Raises ``sqlite3.DatabaseError`` for a file that is not what SQLite wrote."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def open_reader(folder: Path) -> sqlite3.Connection:
    """A connection that only reads, beside the writer's."""
    connection = sqlite3.connect(
        f"{(folder / FILE).resolve().as_uri()}?mode=ro", uri=True, isolation_level=None
    )
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    # One spoilt byte must not hide the other rows.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    return connection


def used_bytes(connection: sqlite3.Connection) -> int:
    """Of the file, what is not free for more."""
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int(pages - free) * int(page_bytes)


def set_aside(folder: Path, why: str) -> None:
    """Keep a file that cannot be read for whoever wants to look; only the last such."""
    log.error(
        "the spool cannot be read (%s): it is set aside as %s, and prompts that were accepted but "
        "not answered are lost with it; their clients have to ask again",
        *(why, folder / SET_ASIDE),
    )
    (folder / FILE).replace(folder / SET_ASIDE)
    for suffix in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            (folder / (FILE + suffix)).replace(folder / (SET_ASIDE + suffix))


def take_ballast(folder: Path) -> bool:
    """Keep room on the disk for later; whether there is."""
    try:
        # Not for appending: then libc does not stand in for file systems that cannot (vfat, UBIFS).
        file = os.open(folder / BALLAST, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, BALLAST_BYTES)
            os.fsync(file)
        finally:
            os.close(file)
    except OSError:
        drop_ballast(folder)
        return False
    return True


def drop_ballast(folder: Path) -> None:
    """Give the room to the spool."""
    with contextlib.suppress(OSError):  # there is none, or the file system takes no writes
        (folder / BALLAST).unlink()
