"""What was accepted is answered, whoever dies in between."""

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bus_client import PATIENCE_S, BusClient, Got, text_of
from node import Broker, Node, running

from edged.spool.database import FILE, SET_ASIDE

SLOW = {"engine__name": "echo", "engine__echo_step_ms": 100}
"""It answers with the question, one byte in 100 ms."""
DISK_BYTES = 24 * 2**20

Start = Callable[..., "contextlib.AbstractContextManager[Node]"]


@pytest.fixture
def name() -> str:
    """New for each test, since a broker remembers."""
    return f"keeper-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def start(broker: Broker, tmp_path: Path, name: str) -> Start:
    """Start the daemon, again and again on the same state directory."""
    return lambda **settings: running(name, broker.port, tmp_path, **settings)


def is_delta(got: Got) -> bool:
    return bool(got.json["type"] == "delta")


def last_lives(replies: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By prompt, what it was told after its last restart."""
    lives: dict[str, list[dict[str, Any]]] = {}
    for reply in replies:
        life = lives.setdefault(reply["id"], [])
        if life and life[0]["restarts"] < reply["restarts"]:
            life.clear()
        life.append(reply)
    return lives


def ends(client: BusClient, ids: set[str]) -> list[dict[str, Any]]:
    """All that comes until each of these has its terminal message."""
    replies: list[dict[str, Any]] = []
    left = set(ids)
    while left:
        replies.append(
            client.wait_for(lambda got: "/completion/" in got.topic, what="a reply").json
        )
        if replies[-1]["type"] in ("done", "failed"):
            left.discard(replies[-1]["id"])
    return replies


def strike_in_the_middle(client: BusClient, name: str, strike: Callable[[], object]) -> None:
    """Ask much of a model at once, and strike when it has begun to answer; no text may change."""
    body = {"prompt": "turn on the kitchen light", "temperature": 0.8, "max_tokens": 200}
    client.subscribe(f"edged/v1/{name}/completion/anonymous/#")
    ids = {uuid.uuid4().hex for _ in range(16)}
    for prompt_id in ids:
        client.publish(f"edged/v1/{name}/prompt", {"id": prompt_id, **body})
    replies = []
    while not replies or replies[-1]["type"] != "delta":
        replies.append(client.next().json)
    strike()
    answered = {reply["id"] for reply in replies if reply["type"] == "done"}
    replies += ends(client, ids - answered)
    last = {each: life[-1] for each, life in last_lives(replies).items()}
    assert {each for each, end in last.items() if end["type"] == "done"} == ids
    assert any(end["restarts"] == 1 for end in last.values())
    for end in last.values():
        assert client.ask(name, **body, seed=end["seed"])[-1]["text"] == end["text"]


# A daemon that dies


def test_an_answer_that_the_daemons_death_cut_begins_again(
    start: Start, client: BusClient, name: str
) -> None:
    with start(**SLOW) as node:
        prompt_id = client.send_prompt(name, prompt="0123456789" * 2)
        client.wait_for(is_delta)
        node.process.kill()
        node.process.wait(PATIENCE_S)
    with start(**SLOW):
        replies = ends(client, {prompt_id})
        life = last_lives(replies)[prompt_id]
        client.nothing_more()
    assert {reply["restarts"] for reply in life} == {1}
    assert [reply["seq"] for reply in life] == list(range(len(life)))
    assert life[0]["type"] == "accepted"
    assert text_of(life) == life[-1]["text"] == "0123456789" * 2
    assert [reply["type"] for reply in replies].count("done") == 1


def test_a_daemons_death_changes_no_text(start: Start, client: BusClient, name: str) -> None:
    with contextlib.ExitStack() as nodes:

        def strike() -> None:
            node.process.kill()
            node.process.wait(PATIENCE_S)
            nodes.enter_context(start(engine__slots=1))

        node = nodes.enter_context(start(engine__slots=1))
        strike_in_the_middle(client, name, strike)


def test_an_answered_id_is_answered_byte_by_byte_the_same_and_not_run(
    start: Start, client: BusClient, name: str
) -> None:
    body = {"id": uuid.uuid4().hex, "prompt": "Grüße aus dem Keller", "stream": False}
    with start(engine__name="echo") as node:
        client.send_prompt(name, **body)
        first = client.wait_for(lambda got: got.json["type"] == "done")
        node.process.kill()
        node.process.wait(PATIENCE_S)
    with start(engine__name="echo"):
        # It may come by itself, if the daemon had not heard that it arrived.
        client.publish(f"edged/v1/{name}/prompt", body)
        second = client.next()
        client.publish(f"edged/v1/{name}/prompt", body)
        third = client.next()
    assert first.payload == second.payload == third.payload


def test_an_id_with_another_body_is_a_conflict_after_a_restart_too(
    start: Start, client: BusClient, name: str
) -> None:
    with start(engine__name="echo"):
        prompt_id = client.ask(name, prompt="one")[-1]["id"]
    with start(engine__name="echo"):
        client.publish(f"edged/v1/{name}/prompt", {"id": prompt_id, "prompt": "two"})
        assert client.next().json["code"] == "duplicate_conflict"


def test_an_answer_that_arrived_does_not_come_again_after_a_clean_stop(
    start: Start, client: BusClient, name: str
) -> None:
    with start(engine__name="echo"):
        assert client.ask(name, prompt="one")[-1]["type"] == "done"
    with start(engine__name="echo"):
        client.nothing_more()


def test_a_prompt_sent_while_the_daemon_is_gone_is_answered_when_it_is_back(
    start: Start, client: BusClient, name: str
) -> None:
    with start(engine__name="echo"):
        pass
    prompt_id = client.send_prompt(name, prompt="anyone there?")
    with start(engine__name="echo"):
        assert list(client.replies(prompt_id))[-1]["text"] == "anyone there?"


# A daemon that stops


def test_a_stop_finishes_what_is_being_answered(start: Start, client: BusClient, name: str) -> None:
    with start(**SLOW, drain_s=20) as node:
        client.subscribe(f"edged/v1/{name}/status")
        prompt_id = client.send_prompt(name, prompt="0123456789")
        client.wait_for(lambda got: got.properties.get("edged-type") == "delta")
        assert node.stop() == 0
    got = client.wait_for(
        lambda got: got.properties.get("edged-type") == "done" or got.payload == b"offline"
    )
    assert (got.json["id"], got.json["restarts"]) == (prompt_id, 0)
    assert got.json["text"] == "0123456789"


def test_what_waited_when_the_daemon_stopped_is_answered_by_the_next(
    start: Start, client: BusClient, name: str
) -> None:
    with start(**SLOW) as node:
        ids = {client.send_prompt(name, prompt=text) for text in ("x" * 40, "y", "z")}
        client.wait_for(is_delta)
        assert node.stop() == 0
    with start(engine__name="echo"):
        last = {each: life[-1] for each, life in last_lives(ends(client, ids)).items()}
    assert sorted(end["text"] for end in last.values()) == sorted(["x" * 40, "y", "z"])


def test_a_second_signal_ends_the_waiting(start: Start, client: BusClient, name: str) -> None:
    with start(**SLOW, drain_s=86_400) as node:
        client.send_prompt(name, prompt="x" * 2000, max_tokens=1000)
        client.wait_for(is_delta)
        node.process.send_signal(signal.SIGTERM)
        node.wait_for_log("stopping: 1 are being answered")
        assert node.process.poll() is None
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(PATIENCE_S) == 0


def test_what_comes_while_the_daemon_stops_is_refused(
    start: Start, client: BusClient, name: str
) -> None:
    with start(**SLOW, drain_s=20) as node:
        client.subscribe(f"edged/v1/{name}/state")
        active = client.send_prompt(name, prompt="x" * 30)
        client.wait_for(lambda got: got.json.get("type") == "delta")
        node.process.send_signal(signal.SIGTERM)
        client.wait_for(lambda got: str(got.json.get("reason")).startswith("draining"))
        late = client.send_prompt(name, prompt="late")
        failed = client.wait_for(lambda got: got.json.get("id") == late).json
        done = client.wait_for(lambda got: got.json.get("type") == "done").json
    assert (failed["code"], failed["status"], failed["retryable"]) == ("draining", 503, True)
    assert (failed["seq"], done["id"]) == (0, active)


# A worker that dies


def test_a_workers_death_changes_no_text(start: Start, client: BusClient, name: str) -> None:
    with start(engine__slots=1) as node:
        strike_in_the_middle(client, name, lambda: os.kill(node.worker_pid(), signal.SIGKILL))


# Conversations


def test_a_conversation_survives_a_restart(start: Start, client: BusClient, name: str) -> None:
    with start(engine__name="echo") as node:
        first = client.ask(name, prompt="my name is Ada", session="s")[-1]
        node.process.kill()
        node.process.wait(PATIENCE_S)
    with start(engine__name="echo"):
        second = client.ask(name, prompt="who am I?", session="s")[-1]
    assert first["session"] == {"turns": 1, "left": 0}
    assert second["session"] == {"turns": 2, "left": 0}
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + len("who am I?")


def test_a_reset_begins_a_conversation_anew(start: Start, client: BusClient, name: str) -> None:
    with start(engine__name="echo"):
        for text in ("one", "two"):
            client.ask(name, prompt=text, session="s")
        reset = client.ask(name, prompt="three", session="s", session_reset=True)[-1]
        alone = client.ask(name, prompt="three")[-1]
    assert reset["session"] == {"turns": 1, "left": 2}
    assert reset["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]


def test_a_conversation_is_its_clients_own(start: Start, client: BusClient, name: str) -> None:
    with start(engine__name="echo"):
        client.ask(name, "alice", prompt="my secret", session="s")
        other = client.ask(name, "mallory", prompt="what is it?", session="s")[-1]
    assert other["session"] == {"turns": 1, "left": 0}


def test_a_conversation_outgrows_the_context_and_goes_on(
    start: Start, client: BusClient, name: str
) -> None:
    with start(engine__name="echo", engine__ctx=512):
        uses = [client.ask(name, prompt="x" * 100, session="s")[-1]["session"] for _ in range(6)]
    assert uses[0] == {"turns": 1, "left": 0}
    assert uses[-1]["turns"] < 6
    assert uses[-1]["left"] >= 1


def test_prompts_of_one_conversation_sent_at_once_are_answered_one_after_another(
    start: Start, client: BusClient, name: str
) -> None:
    with start(engine__name="echo", engine__slots=4):
        ids = [client.send_prompt(name, prompt=f"turn {n}", session="s") for n in range(5)]
        last = {each: life[-1] for each, life in last_lives(ends(client, set(ids))).items()}
    assert [last[each]["session"]["turns"] for each in ids] == [1, 2, 3, 4, 5]


# A disk that fails


def test_a_spoilt_spool_is_set_aside_and_the_node_serves(
    start: Start, client: BusClient, name: str, tmp_path: Path
) -> None:
    with start(engine__name="echo"):
        client.ask(name, prompt="one")
    file = tmp_path / "state" / FILE
    file.write_bytes(b"no database" * 1000)
    with start(engine__name="echo") as node:
        assert client.ask(name, prompt="two")[-1]["text"] == "two"
    assert "the spool cannot be read" in node.log
    assert (tmp_path / "state" / SET_ASIDE).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_refuses_what_comes_and_finishes_what_it_has(
    start: Start, client: BusClient, name: str, small_disk: Path
) -> None:
    with start(**SLOW, state_dir=small_disk) as node:
        body = {"id": uuid.uuid4().hex, "prompt": "0123456789" * 3}
        client.send_prompt(name, **body)
        client.wait_for(is_delta)
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        # Prompts are taken until the room is used up that the spool has in its log and its pages.
        refused = None
        while refused is None:
            late = client.send_prompt(name, prompt="y" * 200_000, max_tokens=1)
            reply = client.wait_for(lambda got, late=late: got.json["id"] == late).json
            refused = reply if reply["type"] == "failed" else None
            client.publish(f"edged/v1/{name}/cancel", {"id": late})
        assert (refused["code"], refused["status"]) == ("disk_full", 507)
        client.subscribe(f"edged/v1/{name}/state")
        client.wait_for(lambda got: any("disk" in each for each in got.json.get("faults", [])))
        filler.unlink()
        client.wait_for(lambda got: got.json.get("faults") == [])
        assert client.ask(name, prompt="room?")[-1]["text"] == "room?"
        assert node.process.poll() is None
    with start(**SLOW, state_dir=small_disk):
        client.publish(f"edged/v1/{name}/prompt", body)
        again = client.wait_for(lambda got: got.json.get("id") == body["id"]).json
    assert (again["restarts"], again["text"]) == (0, body["prompt"])
