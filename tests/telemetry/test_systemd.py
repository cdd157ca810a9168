"""What systemd hears, at a socket like its own; by its library and without."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.telemetry.systemd import STATUS_LONGEST_BYTES, Supervisor

PATIENCE_S = 30.0


class Ear:
    """A notification socket, as systemd has one."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(PATIENCE_S)

    def next(self) -> list[str]:
        return self._socket.recv(65536).decode().split("\n")

    def hears_nothing(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(65536)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


def without_systemd_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("systemd", "systemd.daemon", "systemd.journal"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(params=["systemd-python", "plain"])
def ear(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ear]:
    if request.param == "plain":
        without_systemd_python(monkeypatch)
    else:
        pytest.importorskip("systemd.daemon")
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    ear = Ear(address)
    yield ear
    ear.close()


def test_readiness_is_told(ear: Ear) -> None:
    Supervisor().ready()

    assert ear.next() == ["READY=1"]


@pytest.mark.parametrize("has_library", [True, False])
def test_an_abstract_socket_is_reached(monkeypatch: pytest.MonkeyPatch, has_library: bool) -> None:
    if not has_library:
        without_systemd_python(monkeypatch)
    name = f"edged-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    ear = Ear(f"\0{name}")
    try:
        Supervisor().ready()
        assert ear.next() == ["READY=1"]
    finally:
        ear.close()


def test_a_reload_is_told_with_the_time_of_the_clock_that_systemd_compares(ear: Ear) -> None:
    before_us = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
    Supervisor().reloading()
    word, when = ear.next()

    assert word == "RELOADING=1"
    name, _, value = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us - 1 <= int(value) <= time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6


def test_the_end_is_told_and_time_is_asked_for(ear: Ear) -> None:
    Supervisor().stopping()

    assert ear.next() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=30000000"]


def test_the_status_is_told_as_it_is(ear: Ear) -> None:
    Supervisor().status("nominal, serving; 61.2 of 80 °C")

    assert ear.next() == ["STATUS=nominal, serving; 61.2 of 80 °C"]


def test_a_status_that_is_the_same_is_not_told_again(ear: Ear) -> None:
    supervisor = Supervisor()
    supervisor.status("nominal")
    supervisor.status("nominal")
    ear.next()

    assert ear.hears_nothing()


def test_a_status_is_one_line_and_steers_no_terminal(ear: Ear) -> None:
    Supervisor().status("fault:\n\x1b[31mREADY=1")

    assert ear.next() == ["STATUS=fault:  [31mREADY=1"]


def test_a_long_status_is_cut_between_characters(ear: Ear) -> None:
    Supervisor().status("x" + "é" * STATUS_LONGEST_BYTES)
    (line,) = ear.next()

    assert len(line.removeprefix("STATUS=").encode()) == STATUS_LONGEST_BYTES - 1


async def test_the_watchdog_is_fed_while_the_loop_turns(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    watching = asyncio.create_task(Supervisor().watch())
    said = [await asyncio.to_thread(ear.next) for _ in range(3)]
    watching.cancel()

    assert said == [["WATCHDOG=1"]] * 3


async def test_the_watchdog_is_not_fed_while_the_loop_hangs(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    watching = asyncio.create_task(Supervisor().watch())
    await asyncio.to_thread(ear.next)
    while not ear.hears_nothing():
        pass
    time.sleep(0.1)  # noqa: ASYNC251 (that is what hangs)

    assert ear.hears_nothing()
    watching.cancel()


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"},
    ],
    ids=["none", "zero", "rubbish", "another-process"],
)
async def test_no_watchdog_is_fed_that_is_not_ours(
    ear: Ear, monkeypatch: pytest.MonkeyPatch, watchdog: dict[str, str]
) -> None:
    for name, value in watchdog.items():
        monkeypatch.setenv(name, value)
    watching = asyncio.create_task(Supervisor().watch())
    await asyncio.sleep(0.05)

    assert not watching.done()
    assert ear.hears_nothing()
    watching.cancel()


async def test_time_is_asked_for_again_and_again_while_the_last_answers_go_out(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    supervisor = Supervisor()
    supervisor.stopping()
    ear.next()
    watching = asyncio.create_task(supervisor.watch())
    said = [word for _ in range(6) for word in await asyncio.to_thread(ear.next)]
    watching.cancel()

    assert said == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=30000000"] * 3


@pytest.mark.parametrize("address", [None, "", "vsock:2:1"])
async def test_without_systemd_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.status("nominal")
    supervisor.stopping()
    watching = asyncio.create_task(supervisor.watch())
    await asyncio.sleep(0)

    assert not watching.done()
    watching.cancel()


def test_a_socket_that_nobody_reads_is_one_line_in_the_log(
    ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    ear.close()
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.status("nominal")

    (record,) = caplog.records
    assert record.getMessage() == "systemd cannot be told READY=1: Connection refused"


def test_a_full_socket_does_not_stop_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_systemd_python(monkeypatch)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    ear = Ear(str(tmp_path / "notify"))
    supervisor = Supervisor()
    for _ in range(2000):  # more than a queue of datagrams holds
        supervisor.ready()
    ear.close()

    assert "systemd cannot be told" in caplog.text
