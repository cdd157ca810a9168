"""``edged top`` as a user runs it, on a real broker, and in a real terminal."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bus_client import PATIENCE_S, BusClient
from node import Broker, edged, free_port, node_environment

from edged.cli.bus import Message
from edged.cli.top import MOST_SAMPLES, Watched
from edged.cli.top_view import HISTORY_S

ROOT = "edged/v1"
CARD = {"device": "Raspberry Pi 5", "model": "phi", "quant": "Q4_0"}
STATE = {
    "level": "trimmed",
    "reason": "held below 80 °C",
    "since": 0,
    "temperature_c": 71.5,
    "limit_c": 80.0,
    "memory": {"available_bytes": 2**31, "worker_bytes": 2**30},
    "queued": 0,
    "active": 1,
    "tokens_per_s": 4.25,
    "model_state": "serving",
    "faults": [],
}


def message(topic: str, payload: object) -> Message:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Message(f"{ROOT}/{topic}", body)


def watched(*messages: Message, only: str | None = None) -> Watched:
    seen = Watched(ROOT, only)
    for at_s, each in enumerate(messages):
        seen.take(each, float(at_s))
    return seen


# What is taken from the bus


def test_a_node_is_made_of_its_three_topics() -> None:
    seen = watched(message("a/status", b"online"), message("a/card", CARD), message("a/state", {}))
    assert seen.nodes["a"].is_online
    assert seen.nodes["a"].card == CARD


def test_only_the_node_that_is_asked_for_is_watched() -> None:
    seen = watched(message("a/status", b"online"), message("b/status", b"online"), only="b")
    assert [*seen.nodes] == ["b"]


def test_a_node_whose_status_is_deleted_is_forgotten() -> None:
    state = message("a/state", STATE)
    seen = watched(message("a/status", b"online"), state, message("a/status", b""))
    assert (seen.nodes, seen.history) == ({}, {})


def test_a_temperature_is_remembered_with_its_time_and_its_absence_too() -> None:
    seen = watched(message("a/state", STATE), message("a/state", {"level": "nominal"}))
    said = [(sample.at_s, sample.temperature_c) for sample in seen.history["a"]]
    assert said == [(0.0, 71.5), (1.0, None)]


def test_what_is_too_long_ago_is_forgotten() -> None:
    seen = watched(message("a/state", STATE))
    seen.take(message("a/state", STATE), HISTORY_S + 1)
    assert len(seen.history["a"]) == 1


def test_a_node_that_raves_takes_no_more_than_its_share() -> None:
    seen = watched(*[message("a/state", STATE)] * (MOST_SAMPLES + 5))
    assert len(seen.history["a"]) <= MOST_SAMPLES


@pytest.mark.parametrize(
    "payload",
    [b"{", b"\xff\xfe", b"[1]", b"null", b"3", b"[" * 100_000, b"1" * 10_000, b'{"a":' * 50_000],
)
def test_what_cannot_be_read_changes_nothing(payload: bytes) -> None:
    seen = watched(message("a/state", STATE), message("a/state", payload))
    assert seen.nodes["a"].state == STATE
    assert len(seen.history["a"]) == 1


@pytest.mark.parametrize("topic", ["a b/state", "a/state/more", "a/other", "state", ""])
def test_other_topics_are_not_nodes(topic: str) -> None:
    assert watched(message(topic, STATE)).nodes == {}


# One frame


def publish(port: int, *names: str, **status: str) -> None:
    with BusClient(port) as client:
        for name in names:
            client.publish(f"{ROOT}/{name}/card", CARD, retain=True)
            client.publish(f"{ROOT}/{name}/state", {**STATE, "since": time.time()}, retain=True)
            client.publish(f"{ROOT}/{name}/status", status.get(name, "online"), retain=True)


def top(port: int, folder: Path, *arguments: str, **settings: str) -> Any:
    environment = node_environment("watcher", port, folder)
    return edged({**environment, "COLUMNS": "80", **settings}, "top", *arguments)


def test_once_prints_all_nodes_and_ends(broker: Broker, tmp_path: Path) -> None:
    publish(broker.port, "attic", "shed", shed="offline")
    run = top(broker.port, tmp_path, "--once")
    assert (run.returncode, run.stderr) == (0, "")
    assert "71.5 °C, limit 80 °C" in run.stdout
    assert "offline; phi (Q4_0)" in run.stdout
    assert "\x1b" not in run.stdout


def test_once_prints_one_node_in_full(broker: Broker, tmp_path: Path) -> None:
    publish(broker.port, "attic", "shed")
    run = top(broker.port, tmp_path, "--once", "--node", "attic")
    assert run.returncode == 0
    assert "prompts      1 active, 0 waiting, 4.2 tokens/s" in run.stdout
    assert "shed" not in run.stdout


def test_where_the_output_is_no_terminal_once_is_meant(broker: Broker, tmp_path: Path) -> None:
    publish(broker.port, "attic")
    run = top(broker.port, tmp_path)
    assert run.returncode == 0
    assert run.stdout.count("attic") == 1


def test_an_encoding_without_the_signs_is_no_error(broker: Broker, tmp_path: Path) -> None:
    publish(broker.port, "attic")
    run = top(broker.port, tmp_path, "--once", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert run.returncode == 0, run.stderr
    assert run.stdout.isascii()
    assert "71.5 'C" in run.stdout


def test_a_node_that_nobody_knows_is_one_line(broker: Broker, tmp_path: Path) -> None:
    run = top(broker.port, tmp_path, "--node", "attic")
    said = "edged: there is no node attic on this broker; start one with: edged run\n"
    assert (run.returncode, run.stderr) == (1, said)


def test_without_a_broker_there_is_one_line_and_its_exit_code(tmp_path: Path) -> None:
    run = top(free_port(), tmp_path)
    assert run.returncode == 5
    assert run.stderr.startswith("edged: no broker at 127.0.0.1:")
    assert len(run.stderr.splitlines()) == 1


# Live


class Screen:
    """A terminal of 80 by 24 with ``edged top`` in it."""

    def __init__(self, port: int, folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        environment = node_environment("watcher", port, folder) | {"TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edged", "top"],
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.written = ""

    def wait_for(self, text: str) -> None:
        """Until it is written from now on."""
        self.written = ""
        until_s = time.monotonic() + PATIENCE_S
        while text not in self.plain:
            assert time.monotonic() < until_s, f"no {text!r} in {self.plain}"
            self.read()

    def read(self) -> bool:
        """What there is; false at the end."""
        if not select.select([self._ours], [], [], 0.2)[0]:
            return self.process.poll() is None
        try:
            self.written += os.read(self._ours, 65_536).decode(errors="replace")
        except OSError:  # the other side is closed
            return False
        return True

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.written)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        until_s = time.monotonic() + PATIENCE_S
        while self.read():
            assert time.monotonic() < until_s, f"it goes on: {self.plain}"
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@pytest.fixture
def screen(broker: Broker, tmp_path: Path) -> Iterator[Screen]:
    publish(broker.port, "attic", "shed")
    with contextlib.closing(Screen(broker.port, tmp_path)) as screen:
        screen.wait_for("shed")
        yield screen


def test_what_a_node_says_is_shown_as_it_comes(broker: Broker, screen: Screen) -> None:
    with BusClient(broker.port) as client:
        client.publish(f"{ROOT}/attic/state", {**STATE, "temperature_c": 79.9}, retain=True)
    screen.wait_for("79.9 °C")


def test_ctrl_c_ends_well_and_leaves_the_terminal_as_it_was(screen: Screen) -> None:
    assert screen.interrupt() == 0
    assert "\x1b[?1049l" in screen.written  # out of the alternate screen
    assert "\x1b[?25h" in screen.written  # the cursor is back
    assert "Traceback" not in screen.plain


def test_ctrl_c_ends_well_while_the_broker_is_away(broker: Broker, screen: Screen) -> None:
    broker.stop()
    screen.wait_for("trying again")
    assert screen.interrupt() == 0


def test_a_broker_that_went_away_is_named_and_found_again(broker: Broker, screen: Screen) -> None:
    broker.stop()
    screen.wait_for("no broker for")
    broker.start()
    publish(broker.port, "cellar")
    screen.wait_for("cellar")
    screen.wait_for("Ctrl-C ends")
