"""Things die, and whoever asked is told."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bus_client import PATIENCE_S, BusClient, text_of
from node import Broker, Node, free_port, running, wait_until_open

from edged.models.bundled import BUNDLED_MODEL


def test_a_prompt_whose_worker_is_killed_is_answered_by_the_next(
    slow: Node, client: BusClient
) -> None:
    prompt_id = client.send_prompt("slow", prompt="0123456789")
    client.wait_for(lambda got: got.json["type"] == "delta")
    os.kill(slow.worker_pid(), signal.SIGKILL)
    replies = [reply for reply in client.replies(prompt_id) if reply["restarts"] == 1]
    assert [reply["seq"] for reply in replies] == list(range(len(replies)))
    assert (replies[0]["type"], replies[-1]["type"]) == ("accepted", "done")
    assert text_of(replies) == replies[-1]["text"] == "0123456789"
    client.nothing_more()


def test_a_prompt_that_kills_every_worker_fails_for_good(slow: Node, client: BusClient) -> None:
    prompt_id = client.send_prompt("slow", prompt="x" * 100)
    for restarts in (0, 1):
        client.wait_for(
            lambda got, restarts=restarts: (
                (got.json["type"], got.json["restarts"]) == ("delta", restarts)
            )
        )
        os.kill(slow.worker_pid(), signal.SIGKILL)
    failed = list(client.replies(prompt_id))[-1]
    assert (failed["code"], failed["retryable"]) == ("engine_failed", False)
    assert failed["details"] == {"deaths": 2}
    assert "SIGKILL" in failed["error"]
    assert client.ask("slow", prompt="again")[-1]["text"] == "again"


def test_a_waiting_prompt_survives_the_worker(slow: Node, client: BusClient) -> None:
    slow.wait_for_state("serving")
    client.send_prompt("slow", prompt="occupied")
    client.wait_for(lambda got: got.json["type"] == "delta")
    waiting = client.send_prompt("slow", prompt="patient")
    client.wait_for(lambda got: got.json["type"] == "accepted" and got.json["id"] == waiting)
    os.kill(slow.worker_pid(), signal.SIGKILL)
    assert list(client.replies(waiting))[-1]["text"] == "patient"


def test_a_stopping_daemon_tells_those_it_keeps(broker: Broker, folder: Path) -> None:
    settings = {"engine__name": "echo", "engine__echo_step_ms": 100}
    with BusClient(broker.port) as client, running("leaving", broker.port, folder, **settings) as n:
        client.subscribe("edged/v1/leaving/status")
        active = client.send_prompt("leaving", prompt="x" * 100)
        waiting = client.send_prompt("leaving", prompt="y")
        client.wait_for(lambda got: "delta" in got.properties.get("edged-type", ""))
        assert n.stop() == 0
        told, status = set(), []
        while b"offline" not in status:
            got = client.next()
            if got.topic.endswith("/status"):
                status.append(got.payload)
            elif got.json["type"] == "waiting":
                assert "kept" in got.json["reason"]
                told.add(got.json["id"])
        assert told == {active, waiting}


def test_the_will_says_offline_when_the_daemon_is_killed(broker: Broker, folder: Path) -> None:
    with BusClient(broker.port) as client:
        with running("victim", broker.port, folder, engine__name="echo") as node:
            worker = node.worker_pid()
            client.subscribe("edged/v1/victim/status")
            assert client.next().payload == b"online"
            node.process.kill()
            assert client.next().payload == b"offline"
        _wait_until_gone(worker)


def test_the_worker_ends_with_its_daemon(broker: Broker, folder: Path) -> None:
    with running("parent", broker.port, folder, engine__name="echo") as node:
        worker = node.worker_pid()
    _wait_until_gone(worker)


def _wait_until_gone(pid: int) -> None:
    """An orphan is reaped by whoever is process 1, so a zombie counts as gone."""
    gone = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return
        if "State:\tZ" in status:
            return
        gone.wait(0.05)
    raise AssertionError(f"the worker {pid} lives on")


def test_a_broker_that_comes_back_finds_the_node_again(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    try:
        with running("loyal", broker.port, tmp_path, engine__name="echo"):
            broker.stop()
            broker.start()
            with BusClient(broker.port) as client:
                client.subscribe("edged/v1/loyal/status")
                client.wait_for(lambda got: got.payload == b"online")
                assert client.ask("loyal", prompt="still there?")[-1]["text"] == "still there?"
    finally:
        broker.stop()


def test_a_daemon_started_before_its_broker_waits_for_it(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    node = Node("early", broker.port, tmp_path, engine__name="echo")
    try:
        node.wait_for_log(f"no broker at 127.0.0.1:{broker.port}")
        broker.start()
        node.wait_for_state("serving")
    finally:
        node.stop()
        broker.stop()


def test_a_broker_that_knows_only_3_1_1_gets_3_1_1(tmp_path: Path) -> None:
    pytest.importorskip("amqtt")
    port = free_port()
    config = tmp_path / "amqtt.yaml"
    config.write_text(
        f"listeners: {{default: {{type: tcp, bind: '127.0.0.1:{port}'}}}}\n"
        "plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}}\n"
    )
    with (tmp_path / "amqtt.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_open(port)
        node = Node("fallback", port, tmp_path, engine__name="echo")
        try:
            with BusClient(port, v5=False) as client:
                client.subscribe("edged/v1/fallback/state")
                client.wait_for(lambda got: got.json["model_state"] == "serving")
                assert client.ask("fallback", prompt="old but here")[-1]["text"] == "old but here"
            assert re.search("connected to .* with MQTT 3.1.1", node.log)
        finally:
            node.stop()
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_a_requester_hears_signs_of_life_while_it_waits(broker: Broker, folder: Path) -> None:
    settings = {"engine__name": "echo", "engine__echo_step_ms": 10_000}
    with (
        running("sleepy", broker.port, folder, **settings),
        BusClient(broker.port) as client,
    ):
        client.send_prompt("sleepy", prompt="x", max_tokens=2)
        waiting_id = client.send_prompt("sleepy", prompt="y", max_tokens=1)
        waiting = client.wait_for(
            lambda got: got.json["type"] == "waiting" and got.json["id"] == waiting_id
        ).json
        assert waiting["level"] == "nominal"
        assert "1 prompts are being answered" in waiting["reason"]


@pytest.mark.parametrize("kind", ["truncated", "magic", "architecture", "missing"])
def test_bad_weights_are_a_state_and_an_answer(
    broker: Broker, folder: Path, client: BusClient, kind: str
) -> None:
    good = BUNDLED_MODEL.read_bytes()
    data = {
        "truncated": good[: len(good) // 2],
        "magic": b"GGML" + good[4:],
        "architecture": good.replace(b"phi3", b"phi9"),
        "missing": None,
    }[kind]
    file = folder / "bad.gguf"
    if data is not None:
        file.write_bytes(data)
    node = Node(f"bad-{kind}", broker.port, folder, model__path=file)
    try:
        state = node.wait_for_state("refused")
        assert "bad.gguf" in str(state["reason"])
        failed = client.ask(node.name, prompt="hello")[-1]
        assert (failed["code"], failed["retryable"]) == ("engine_failed", False)
        assert node.process.poll() is None
    finally:
        assert node.stop() == 0
