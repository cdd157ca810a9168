"""What systemd names to wait on for memory pressure: files of the kernel, FIFOs and sockets."""

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from edged.hardware.pressure_watch import HOLDS_S, PressureWatch

PSI = Path("/proc/pressure/memory")
THRESHOLD = b"some 200000 2000000\0"
PATIENCE_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def watch(clock: Clock) -> AsyncIterator[PressureWatch]:
    watch = PressureWatch(clock)
    yield watch
    watch.close()


@pytest.fixture
def fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pressure"
    os.mkfifo(path)
    monkeypatch.setenv("MEMORY_PRESSURE_WATCH", str(path))
    monkeypatch.setenv("MEMORY_PRESSURE_WRITE", base64.b64encode(THRESHOLD).decode())
    return path


def tell(fifo: Path) -> None:
    writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    os.write(writing, b"x")
    os.close(writing)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 (nobody would set an event)
            await asyncio.sleep(0.01)


async def until_pressed(watch: PressureWatch) -> None:
    await until(lambda: watch.is_pressed)


async def idle_turns() -> None:
    """So many that whatever is ready has been seen."""
    for _ in range(20):
        await asyncio.sleep(0)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_nothing_is_watched_that_nobody_named(
    watch: PressureWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEMORY_PRESSURE_WATCH", raising=False)
    before = open_files()
    watch.start()

    assert (open_files(), watch.is_pressed) == (before, False)


async def test_nothing_is_watched_where_that_is_switched_off(
    watch: PressureWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_PRESSURE_WATCH", "/dev/null")
    before = open_files()
    watch.start()

    assert open_files() == before


async def test_a_word_in_a_fifo_is_pressure(watch: PressureWatch, fifo: Path) -> None:
    watch.start()
    tell(fifo)
    await until_pressed(watch)


async def test_until_there_is_a_word_there_is_none(watch: PressureWatch, fifo: Path) -> None:
    watch.start()
    await idle_turns()

    assert not watch.is_pressed


async def test_a_word_counts_for_a_while(watch: PressureWatch, fifo: Path, clock: Clock) -> None:
    watch.start()
    tell(fifo)
    await until_pressed(watch)
    clock.now_s += HOLDS_S

    assert not watch.is_pressed


async def test_after_a_word_the_next_one_counts_too(
    watch: PressureWatch, fifo: Path, clock: Clock
) -> None:
    watch.start()
    tell(fifo)
    await until_pressed(watch)
    clock.now_s += HOLDS_S
    tell(fifo)
    await until_pressed(watch)


async def test_after_the_end_nothing_is_seen_and_nothing_left_open(
    watch: PressureWatch, fifo: Path
) -> None:
    before = open_files()
    watch.start()
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    watch.close()
    tell(fifo)
    await idle_turns()
    os.close(reading)

    assert (open_files(), watch.is_pressed) == (before, False)


class Neighbour:
    """Whoever listens at the socket in place of the kernel."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()

    def accept(self) -> socket.socket:
        connection, _ = self._socket.accept()
        connection.settimeout(PATIENCE_S)
        return connection

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Neighbour]:
    path = tmp_path / "pressure.socket"
    neighbour = Neighbour(path)
    monkeypatch.setenv("MEMORY_PRESSURE_WATCH", str(path))
    monkeypatch.setenv("MEMORY_PRESSURE_WRITE", base64.b64encode(THRESHOLD).decode())
    yield neighbour
    neighbour.close()


async def test_a_word_on_a_socket_is_pressure(watch: PressureWatch, neighbour: Neighbour) -> None:
    watch.start()
    with neighbour.accept() as connection:
        connection.sendall(b"x")
        await until_pressed(watch)


async def test_what_systemd_wants_written_is_written(
    watch: PressureWatch, neighbour: Neighbour
) -> None:
    watch.start()
    with neighbour.accept() as connection:
        assert connection.recv(100) == THRESHOLD


async def test_a_neighbour_that_goes_is_not_listened_to_any_more(
    watch: PressureWatch, neighbour: Neighbour
) -> None:
    before = open_files()
    watch.start()
    neighbour.accept().close()
    await until(lambda: open_files() == before)

    assert not watch.is_pressed


@pytest.mark.parametrize(
    ("path", "to_write"),
    [("/does/not/exist", ""), (__file__, ""), (str(PSI), "no base64!")],
)
async def test_what_cannot_be_watched_is_left_alone(
    watch: PressureWatch, monkeypatch: pytest.MonkeyPatch, path: str, to_write: str
) -> None:
    monkeypatch.setenv("MEMORY_PRESSURE_WATCH", path)
    monkeypatch.setenv("MEMORY_PRESSURE_WRITE", to_write)
    before = open_files()
    watch.start()

    assert (open_files(), watch.is_pressed) == (before, False)


@pytest.mark.skipif(not os.access(PSI, os.W_OK), reason="needs the kernel's PSI")
async def test_a_file_of_the_kernel_that_has_nothing_to_tell_is_waited_for(
    watch: PressureWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_PRESSURE_WATCH", str(PSI))
    never = b"some 1999999 2000000\0"
    monkeypatch.setenv("MEMORY_PRESSURE_WRITE", base64.b64encode(never).decode())
    before = open_files()
    watch.start()
    await idle_turns()

    assert open_files() > before
    assert watch.tells_of(str(PSI))
    assert not watch.is_pressed
    watch.close()
    assert not watch.tells_of(str(PSI))
