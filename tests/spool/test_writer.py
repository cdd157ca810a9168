"""Writing in batches, in order, and what happens when the disk does not take it."""

import asyncio
import logging
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edged.errors import DiskFull, InternalFailure, PromptFailure
from edged.spool import writer as writer_module
from edged.spool.database import BALLAST, FILE, SET_ASIDE
from edged.spool.writer import Write, Writer

PATIENCE_S = 20.0
DISK_BYTES = 24 * 2**20
PAGE_BYTES = 4096

Outcome = list[PromptFailure | None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.02)
    monkeypatch.setattr(writer_module, "LOOK_FOR_ROOM_S", 0.02)


@asynccontextmanager
async def writing(
    folder: Path, tidy: Callable[[sqlite3.Connection], bool] = lambda _: False
) -> AsyncIterator[Writer]:
    writer = Writer(folder, tidy)
    running = asyncio.create_task(writer.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield writer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        writer.close()


def insert(number: int, text: str = "x") -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(
        "INSERT INTO turns VALUES (?, '', '', ?, 0, 0)", (number, text)
    )


async def written(
    writer: Writer, write: Callable[..., object], **kind: Any
) -> PromptFailure | None:
    """Write, and wait for what becomes of it."""
    told: asyncio.Future[PromptFailure | None] = asyncio.get_running_loop().create_future()
    writer.write(Write(write, told.set_result, **kind))
    return await told


def numbers(writer: Writer) -> list[int]:
    return [number for (number,) in writer.read("SELECT number FROM turns ORDER BY number")]


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 (there is no event for it)
        await asyncio.sleep(0.01)


# Batches


async def test_what_is_told_is_on_disk(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        assert await written(writer, insert(1)) is None
        assert numbers(writer) == [1]


async def test_what_comes_while_the_disk_is_busy_shares_one_commit(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        is_busy, may_go_on = threading.Event(), threading.Event()

        def wait(_: sqlite3.Connection) -> None:
            is_busy.set()
            may_go_on.wait(PATIENCE_S)

        writer.write(Write(wait))
        await asyncio.to_thread(is_busy.wait, PATIENCE_S)
        for number in range(10):
            writer.write(Write(insert(number)))
        may_go_on.set()
        await writer.flush()

        assert (writer.commits, len(numbers(writer))) == (2, 10)


async def test_writes_are_made_and_told_in_order(tmp_path: Path) -> None:
    made: list[int] = []
    told: list[int] = []
    async with writing(tmp_path) as writer:
        for number in range(50):
            writer.write(
                Write(
                    lambda _, number=number: made.append(number),  # type: ignore[misc]
                    lambda _, number=number: told.append(number),  # type: ignore[misc]
                )
            )
            if number % 7 == 0:
                await asyncio.sleep(0)
        await writer.flush()

    assert made == told == list(range(50))


async def test_the_loop_goes_on_while_the_disk_is_busy(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        may_go_on = threading.Event()
        writer.write(Write(lambda _: may_go_on.wait(PATIENCE_S)))
        for _ in range(100):
            await asyncio.sleep(0)
        may_go_on.set()
        await writer.flush()

        assert writer.commits == 1


async def test_what_may_wait_is_written_with_what_may_not(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        await writer.flush()
        before = writer.commits
        writer.write(Write(insert(1)), at_once=False)
        await asyncio.sleep(0.1)  # nothing happens in it
        between = writer.commits
        await written(writer, insert(2))

        assert (between, writer.commits, numbers(writer)) == (before, before + 1, [1, 2])


async def test_nothing_is_committed_while_nothing_comes(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        await writer.flush()
        before = writer.commits
        for _ in range(3):
            await writer.flush()

        assert writer.commits == before


async def test_flushing_waits_for_all_that_came(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        for number in range(5):
            writer.write(Write(insert(number)), at_once=number != 4)
        await writer.flush()

        assert numbers(writer) == [0, 1, 2, 3, 4]


async def test_two_may_flush_at_once(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        writer.write(Write(insert(1)))
        await asyncio.gather(writer.flush(), writer.flush())

        assert numbers(writer) == [1]


async def test_what_is_told_may_write_more(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        writer.write(Write(insert(1), lambda _: writer.write(Write(insert(2)))))
        await writer.flush()

        assert numbers(writer) == [1, 2]


@pytest.mark.parametrize("turns", range(6))
async def test_it_ends_when_it_is_cancelled_whatever_it_is_doing(
    tmp_path: Path, turns: int
) -> None:
    writer = Writer(tmp_path, lambda _: False)
    running = asyncio.create_task(writer.run())
    await writer.flush()
    writer.write(Write(insert(1)))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=PATIENCE_S)
    writer.close()

    assert done == {running}


async def test_before_it_runs_a_write_is_made_at_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path, lambda _: False)
    writer.write_now(Write(insert(1)))

    assert numbers(writer) == [1]
    writer.close()


# Writes that cannot be made


@pytest.mark.parametrize("is_promised", [True, False])
async def test_a_write_of_a_defect_is_told_so_and_the_others_are_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_promised: bool
) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise ValueError("a defect")

    async with writing(tmp_path) as writer:
        writer.write(Write(insert(1)))
        outcome = asyncio.create_task(written(writer, fail, is_promised=is_promised))
        writer.write(Write(insert(2)))
        await writer.flush()

        assert isinstance(await outcome, InternalFailure)
        assert (numbers(writer), writer.no_room) == ([1, 2], None)
    assert "a defect" in caplog.text


async def test_nothing_is_left_of_a_write_that_fails_in_the_middle(tmp_path: Path) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        raise ValueError("a defect")

    async with writing(tmp_path) as writer:
        await written(writer, fail)
        await written(writer, insert(2))

        assert numbers(writer) == [2]


async def test_a_promised_write_is_tried_until_it_works_and_others_do_not_wait(
    tmp_path: Path,
) -> None:
    is_sick = True

    def try_to(connection: sqlite3.Connection) -> None:
        if is_sick:
            raise sqlite3.OperationalError("disk I/O error")
        insert(1)(connection)

    async with writing(tmp_path) as writer:
        sick = asyncio.create_task(written(writer, try_to))
        await asyncio.sleep(0)
        for number in (2, 3):
            assert await written(writer, insert(number)) is None
        assert not sick.done()
        is_sick = False

        assert await sick is None
        assert numbers(writer) == [1, 2, 3]


async def test_an_error_of_the_disk_is_a_fault_until_it_has_passed(tmp_path: Path) -> None:
    is_sick = True

    def try_to(_: sqlite3.Connection) -> None:
        if is_sick:
            raise sqlite3.OperationalError("disk I/O error")

    async with writing(tmp_path) as writer:
        assert writer.fault is None
        sick = asyncio.create_task(written(writer, try_to))
        await until(lambda: writer.fault == "disk: disk I/O error")
        is_sick = False
        await sick
        await until(lambda: writer.fault is None)


# A disk without room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path, *, but: int = 0) -> Path:
    """Take all the room of the disk but so many bytes."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(PAGE_BYTES))
    if but:
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - but)
    return filler


LARGE = "x" * 2**20
"""More than what is left in the pages and the log that the spool has already."""


async def test_without_room_no_prompt_is_taken(small_disk: Path) -> None:
    async with writing(small_disk) as writer:
        await written(writer, insert(1))
        fill(small_disk)
        failure = await written(writer, insert(2, LARGE), is_promised=False)

        assert isinstance(failure, DiskFull)
        assert failure.details["needed"] == 4 * 2**20
        assert (failure.retry_after_s, failure.may_retry) == (60.0, True)
        assert writer.no_room is not None
        assert numbers(writer) == [1]


async def test_without_room_what_was_promised_is_written(small_disk: Path) -> None:
    async with writing(small_disk) as writer:
        await written(writer, insert(1))
        fill(small_disk)
        failures = [await written(writer, insert(number, LARGE)) for number in (2, 3)]

        assert (failures, numbers(writer)) == ([None, None], [1, 2, 3])
        assert not (small_disk / BALLAST).exists()
        assert writer.fault is not None
        assert writer.fault.startswith("disk: ")


async def test_room_that_the_ballast_left_does_not_count_as_room(small_disk: Path) -> None:
    async with writing(small_disk) as writer:
        fill(small_disk)
        await written(writer, insert(1, LARGE))
        await asyncio.sleep(0.2)  # it looks for room several times

        assert writer.no_room is not None


async def test_with_room_again_prompts_are_taken(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with writing(small_disk) as writer:
        filler = fill(small_disk)
        await written(writer, insert(1, LARGE), is_promised=False)
        filler.unlink()
        await until(lambda: writer.no_room is None)

        assert await written(writer, insert(2, LARGE), is_promised=False) is None
        assert writer.fault is None
        assert (small_disk / BALLAST).exists()
    assert "the disk has room again" in caplog.text


async def test_it_starts_on_a_full_disk_and_finishes_what_was_promised(small_disk: Path) -> None:
    async with writing(small_disk) as writer:
        await written(writer, insert(1))
    fill(small_disk)
    async with writing(small_disk) as writer:
        assert numbers(writer) == [1]
        assert await written(writer, insert(2, LARGE)) is None
        assert writer.no_room is not None


async def test_on_a_full_disk_a_write_before_it_runs_takes_the_ballast(small_disk: Path) -> None:
    async with writing(small_disk) as writer:
        await written(writer, insert(1))
    fill(small_disk)
    writer = Writer(small_disk, lambda _: False)
    writer.write_now(Write(insert(2, LARGE)))

    assert numbers(writer) == [1, 2]
    writer.close()


async def test_a_disk_that_never_had_room_says_so(small_disk: Path) -> None:
    fill(small_disk, but=2**20)
    async with writing(small_disk) as writer:
        assert writer.no_room is not None
        assert writer.fault == "disk: no room"


# A file that is spoilt under way


def spoil(folder: Path) -> None:
    """What is on the disk makes no sense any more."""
    with (folder / FILE).open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(random.Random(1).randbytes((folder / FILE).stat().st_size - PAGE_BYTES))


async def test_a_file_that_cannot_be_read_any_more_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with writing(tmp_path) as writer:
        for number in range(100):
            writer.write(Write(insert(number, "x" * 1000)))
        await writer.flush()
        writer._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        spoil(tmp_path)
        first = numbers(writer)
        await written(writer, insert(1000))

        assert (first, numbers(writer)) == ([], [1000])
        assert (tmp_path / SET_ASIDE).exists()
        assert writer.no_room is None
    assert [each.levelno for each in caplog.records].count(logging.ERROR) == 1


async def test_what_is_being_written_when_the_file_is_spoilt_is_written_to_the_next(
    tmp_path: Path,
) -> None:
    async with writing(tmp_path) as writer:
        for number in range(500):
            writer.write(Write(insert(number, "x" * 1000)))
        await writer.flush()
        writer._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        spoil(tmp_path)
        outcomes: Outcome = []
        for number in range(1000, 1003):
            writer.write(Write(insert(number), outcomes.append))
        erase = "DELETE FROM turns WHERE said = 'y'"  # has to read every page
        writer.write(Write(lambda connection: connection.execute(erase)))
        await writer.flush()

        assert (outcomes, numbers(writer)) == ([None] * 3, [1000, 1001, 1002])


# Tidying


async def test_it_tidies_at_the_start_and_then_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[int] = []
    now_s = 1000.0
    monkeypatch.setattr(writer_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    async with writing(tmp_path, lambda _: bool(times.append(1))) as writer:
        counts = []
        for passed_s in (0, 30, 29, 2, 59):
            now_s += passed_s
            await writer.flush()
            counts.append(len(times))

    assert counts == [1, 1, 1, 2, 2]


async def test_a_tidying_that_fails_does_not_keep_prompts_from_being_taken(tmp_path: Path) -> None:
    def fail(_: sqlite3.Connection) -> bool:
        raise ValueError("a defect")

    async with writing(tmp_path, fail) as writer:
        assert await written(writer, insert(1), is_promised=False) is None
