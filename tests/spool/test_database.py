"""The spool's file: closed to others, checked at the start, of a schema that only grows."""

import logging
import os
import random
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.messages import ChatMessage, Done, Prompt, Reply, Sampling, Timings, Usage
from edged.settings import SessionSettings, SpoolSettings
from edged.spool.database import (
    BALLAST,
    BALLAST_BYTES,
    FILE,
    SET_ASIDE,
    drop_ballast,
    open_database,
    open_reader,
    set_aside,
    take_ballast,
)
from edged.spool.spool import Ended, Spool

VERSION_1 = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE prompts (
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
CREATE INDEX finished ON prompts (finished_s) WHERE finished_s IS NOT NULL;
CREATE TABLE turns (
    number INTEGER PRIMARY KEY,
    client TEXT NOT NULL,
    session TEXT NOT NULL,
    said TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    at_s REAL NOT NULL
);
CREATE INDEX conversation ON turns (client, session, number);
CREATE TABLE clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    spool_s REAL NOT NULL,
    boot_s REAL NOT NULL,
    wall_s REAL NOT NULL,
    boot_id TEXT NOT NULL
);
PRAGMA user_version = 1;
INSERT INTO clock VALUES (1, 100.0, 0.0, strftime('%s', 'now'), 'another boot');
INSERT INTO prompts (number, client, id, digest, address, prompt, arrived_s) VALUES
    (1, 'kitchen', 'open', x'01', 'there', '{"id":"open","client":"kitchen","messages":'
    || '[{"role":"user","content":"hi"}],"sampling":{"max_tokens":9,"temperature":0,"top_k":0,'
    || '"top_p":1,"min_p":0,"repeat_penalty":1,"seed":42,"stop":[]},"priority":5,"deadline_s":null,'
    || '"stream":true,"chunk":"token","text_in_done":true,"model":null,"grammar":null,'
    || '"session":null,"session_reset":false}', 90.0);
INSERT INTO prompts
    (number, client, id, digest, address, arrived_s, restarts, finished_s, terminal) VALUES
    (2, 'kitchen', 'ended', x'02', 'here', 91.0, 1, 95.0, '{"id":"ended","seq":3,"restarts":1,'
    || '"message":{"text":"hello","finish_reason":"stop","usage":{"prompt_tokens":3,'
    || '"cached_tokens":0,"completion_tokens":5},"timings":{"queued_ms":1.0,"first_token_ms":2.0,'
    || '"prefill_tokens_per_s":3.0,"decode_tokens_per_s":4.0},"seed":42,"session":null},'
    || '"type":"done"}');
INSERT INTO turns VALUES (2, 'kitchen', 's', '[{"role":"user","content":"hi"},'
    || '{"role":"assistant","content":"hello"}]', 8, 95.0);
"""
"""A file as the first version that had one made it. It is never to be changed."""
ENDED = Reply(
    "ended", 3, 1, Done("hello", "stop", Usage(3, 0, 5), Timings(1.0, 2.0, 3.0, 4.0), 42, None)
)


def make_version_1(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        connection.executescript(VERSION_1)


def prompt(name: str) -> Prompt:
    said = (ChatMessage("user", "hi"),)
    return Prompt(name, "kitchen", said, Sampling(9, 0, 0, 1, 0, 1, seed=42), b"\x01")


@contextmanager
def opened(folder: Path) -> Iterator[Spool]:
    spool = Spool(folder, SpoolSettings(), SessionSettings())
    yield spool
    spool.close()


def fill(folder: Path, count: int = 300) -> None:
    """A file of many pages, as a daemon leaves it that was killed."""
    connection = open_database(folder)
    connection.executemany(
        "INSERT INTO prompts (number, client, id, digest, address, prompt, arrived_s) "
        "VALUES (?, 'kitchen', ?, x'01', '', ?, 0)",
        ((number, str(number), "x" * 1000) for number in range(count)),
    )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


# Who may read it


def test_nobody_else_can_read_the_file_nor_its_log(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with closing(open_database(tmp_path)) as connection:
            connection.execute("INSERT INTO clock VALUES (1, 0, 0, 0, '')")
            take_ballast(tmp_path)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)

    assert modes == dict.fromkeys((FILE, f"{FILE}-wal", f"{FILE}-shm", BALLAST), 0o600)


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    (tmp_path / FILE).chmod(0o644)
    open_database(tmp_path).close()

    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


# How it is written


def test_a_commit_is_on_the_disk_and_what_is_erased_is_overwritten(tmp_path: Path) -> None:
    with closing(open_database(tmp_path)) as connection:
        values = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "auto_vacuum")
        }

    assert values == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "auto_vacuum": 2}


def test_the_reader_sees_what_is_committed_and_writes_nothing(tmp_path: Path) -> None:
    with closing(open_database(tmp_path)) as writer, closing(open_reader(tmp_path)) as reader:
        writer.execute("INSERT INTO clock VALUES (1, 7, 0, 0, '')")

        assert reader.execute("SELECT spool_s FROM clock").fetchall() == [(7.0,)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM clock")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"state_dir: .*{FILE} cannot be written"):
        open_database(tmp_path / "absent")


# A file that cannot be read


@pytest.mark.parametrize("length", [99, 4096, 100_000])
def test_a_file_that_is_no_database_is_set_aside(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    garbage = random.Random(1).randbytes(length)
    (tmp_path / FILE).write_bytes(garbage)
    with opened(tmp_path) as spool:
        assert spool.recover() == []

    assert (tmp_path / SET_ASIDE).read_bytes() == garbage
    (record,) = (each for each in caplog.records if each.levelno >= logging.ERROR)
    assert "set aside" in record.message
    assert str(tmp_path / SET_ASIDE) in record.message


def test_a_file_with_a_spoilt_page_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path)
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(20 * 4096)
        file.write(random.Random(1).randbytes(4096))
    with opened(tmp_path) as spool:
        assert spool.recover() == []

    assert (tmp_path / SET_ASIDE).exists()
    assert "set aside" in caplog.text


def test_a_file_that_was_cut_is_set_aside(tmp_path: Path) -> None:
    fill(tmp_path)
    os.truncate(tmp_path / FILE, 20 * 4096)
    with opened(tmp_path) as spool:
        assert spool.recover() == []

    assert (tmp_path / SET_ASIDE).exists()


def test_an_empty_file_is_begun_with(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    with opened(tmp_path) as spool:
        assert spool.recover() == []

    assert not (tmp_path / SET_ASIDE).exists()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_disk_does_to_the_file_the_spool_opens(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    make_version_1(tmp_path)
    size = (tmp_path / FILE).stat().st_size
    with (tmp_path / FILE).open("r+b") as file:
        for _ in range(chance.choice([1, 1, 10, 100])):
            file.seek(chance.choice([chance.randrange(100), chance.randrange(size)]))
            file.write(chance.randbytes(chance.choice([1, 2, 16, 512])))
    with opened(tmp_path) as spool:
        spool.recover()
        spool.undelivered([], 10)
        spool.find(("kitchen", "ended"))
        spool.turns("kitchen", "s")


def test_a_file_whose_spoilt_names_are_in_its_error_is_set_aside(tmp_path: Path) -> None:
    make_version_1(tmp_path)
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(
        data.replace(b"CREATE INDEX finished", b"C\xaaEATE INDEX f\xaanished")
    )
    with opened(tmp_path) as spool:
        assert spool.recover() == []

    assert (tmp_path / SET_ASIDE).exists()


def test_only_the_last_file_that_could_not_be_read_is_kept(tmp_path: Path) -> None:
    for text in (b"first", b"second"):
        (tmp_path / FILE).write_bytes(text * 1000)
        with opened(tmp_path):
            pass

    assert (tmp_path / SET_ASIDE).read_bytes() == b"second" * 1000


def test_its_log_is_set_aside_with_it(tmp_path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / (FILE + suffix)).write_text(suffix)
    set_aside(tmp_path, "a test")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        SET_ASIDE + suffix for suffix in ("", "-wal", "-shm")
    )


# Other versions


def test_a_file_of_version_1_can_be_gone_on_with(tmp_path: Path) -> None:
    make_version_1(tmp_path)
    with opened(tmp_path) as spool:
        (kept,) = spool.recover()
        (ended,) = spool.undelivered([], 10)

        assert (kept.number, kept.prompt, kept.address, kept.restarts) == (
            1, prompt("open"), "there", 1,
        )  # fmt: skip
        assert ended == Ended(2, b"\x02", "here", ENDED)
        assert spool.find(("kitchen", "ended")) == ended
        assert [turn.number for turn in spool.turns("kitchen", "s")] == [2]
        assert spool.last_number == 2


async def test_a_file_of_a_later_version_can_be_gone_on_with(tmp_path: Path) -> None:
    make_version_1(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.executescript(
            "ALTER TABLE prompts ADD COLUMN adapter TEXT NOT NULL DEFAULT 'none';"
            "ALTER TABLE prompts ADD COLUMN energy_j REAL;"
            "ALTER TABLE turns ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;"
            "ALTER TABLE clock ADD COLUMN drift REAL NOT NULL DEFAULT 0;"
            "CREATE TABLE adapters (name TEXT PRIMARY KEY);"
            "CREATE INDEX by_adapter ON prompts (adapter);"
            "PRAGMA user_version = 9;"
        )
    with opened(tmp_path) as spool:
        (kept,) = spool.recover()
        spool.accept(3, prompt("new"), "there", lambda _: None)
        spool.finish(kept.prompt, Ended(1, b"\x01", "there", ENDED), None, lambda _: None)
        await spool._writer._commit_all()

        assert spool.find(("kitchen", "open")) == Ended(1, b"\x01", "there", ENDED)
        assert [each.prompt for each in spool.recover()] == [prompt("new")]
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (9,)


def test_the_schema_has_all_that_version_1_had(tmp_path: Path) -> None:
    def columns(connection: sqlite3.Connection) -> set[tuple[str, str]]:
        return {
            (table, column)
            for table in ("prompts", "turns", "clock")
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")
        }

    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    make_version_1(tmp_path / "old")
    with (
        closing(sqlite3.connect(tmp_path / "old" / FILE)) as old,
        closing(open_database(tmp_path / "new")) as new,
    ):
        assert columns(old) <= columns(new)


# Ballast


def test_ballast_takes_real_room(tmp_path: Path) -> None:
    assert take_ballast(tmp_path)
    assert (tmp_path / BALLAST).stat().st_blocks * 512 >= BALLAST_BYTES


def test_ballast_that_is_there_is_kept(tmp_path: Path) -> None:
    assert take_ballast(tmp_path)
    assert take_ballast(tmp_path)
    assert (tmp_path / BALLAST).stat().st_size == BALLAST_BYTES


def test_dropping_ballast_twice_harms_nobody(tmp_path: Path) -> None:
    take_ballast(tmp_path)
    for _ in range(2):
        drop_ballast(tmp_path)

    assert list(tmp_path.iterdir()) == []
