"""What a supervisor such as systemd hears of a real daemon, from its start to its end."""

import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_client import PATIENCE_S, BusClient
from node import Broker, Node


class Systemd:
    """The other end of the notification socket; reads all that comes, as systemd does."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._heard: queue.Queue[str] = queue.Queue()
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        while message := self._socket.recv(65536).decode():
            for word in message.split("\n"):
                self._heard.put(word)

    def wait_for(self, word: str) -> list[str]:
        """All that came up to an assignment that begins so; the last is that one."""
        came = [""]
        until_s = time.monotonic() + PATIENCE_S
        while not came[-1].startswith(word):
            assert time.monotonic() < until_s, came
            came.append(self._heard.get(timeout=PATIENCE_S))
        return came[1:]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self.address)
        self._listening.join()
        self._socket.close()


@pytest.fixture
def systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    systemd = Systemd(folder)
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    yield systemd
    systemd.close()


@pytest.fixture
def node(broker: Broker, folder: Path, systemd: Systemd) -> Iterator[Node]:
    settings = {"engine__name": "echo", "engine__echo_step_ms": 100, "drain_s": 30}
    node = Node("supervised", broker.port, folder, **settings)
    yield node
    node.stop()


def test_a_daemon_is_ready_without_a_broker(folder: Path, systemd: Systemd) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        node = Node("alone", nobody.getsockname()[1], folder, engine__name="echo")
        try:
            systemd.wait_for("READY=1")
            systemd.wait_for("STATUS=nominal, serving echo; idle; fault: broker: ")
        finally:
            node.stop()


def test_a_daemon_is_ready_without_a_model(broker: Broker, folder: Path, systemd: Systemd) -> None:
    node = Node("empty", broker.port, folder, model__path=folder / "nothing.gguf")
    try:
        systemd.wait_for("READY=1")
        assert "nothing.gguf" in systemd.wait_for("STATUS=nominal, model not served")[-1]
    finally:
        node.stop()


def test_the_status_says_what_the_daemon_does(node: Node, systemd: Systemd) -> None:
    systemd.wait_for("STATUS=nominal, serving echo; idle")
    with BusClient(node.port) as client:
        client.send_prompt(node.name, "me", prompt="a question of some length", id="1")
        systemd.wait_for("STATUS=nominal, serving echo; 1 answered")
        client.wait_for(lambda got: b'"done"' in got.payload)


def test_the_watchdog_is_fed(node: Node, systemd: Systemd) -> None:
    systemd.wait_for("READY=1")
    for _ in range(3):
        systemd.wait_for("WATCHDOG=1")


def test_a_reload_begins_and_ends(node: Node, systemd: Systemd) -> None:
    systemd.wait_for("READY=1")
    node.process.send_signal(signal.SIGHUP)
    systemd.wait_for("RELOADING=1")
    came = systemd.wait_for("READY=1")

    assert came[0].startswith("MONOTONIC_USEC=")


def test_time_is_asked_for_while_the_last_answers_go_out(node: Node, systemd: Systemd) -> None:
    systemd.wait_for("STATUS=nominal, serving echo; idle")
    with BusClient(node.port) as client:
        client.send_prompt(node.name, "me", prompt="a question of some length", id="1")
        systemd.wait_for("STATUS=nominal, serving echo; 1 answered")
        node.process.send_signal(signal.SIGTERM)
        systemd.wait_for("STOPPING=1")
        systemd.wait_for("EXTEND_TIMEOUT_USEC=")
        systemd.wait_for("EXTEND_TIMEOUT_USEC=")
        client.wait_for(lambda got: b'"done"' in got.payload)

    assert node.process.wait(PATIENCE_S) == 0


def test_a_hanging_daemon_that_is_aborted_says_where_it_hung(node: Node, systemd: Systemd) -> None:
    systemd.wait_for("READY=1")
    node.process.send_signal(signal.SIGABRT)

    assert node.process.wait(PATIENCE_S) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in node.log
