"""`edged models use`, on a daemon that is answering."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bus_client import BusClient
from node import Broker, Node, edged, node_environment, running

from edged.models.bundled import BUNDLED_MODEL
from edged.models.gguf import read_header
from edged.models.selection import read_selection

LONG = {"prompt": "turn on the kitchen light", "max_tokens": 60, "seed": 1}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def name() -> str:
    """New for each test, since a broker remembers."""
    return f"switch-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def node(broker: Broker, tmp_path: Path, name: str) -> Iterator[Node]:
    """Serves ``old`` of a store with ``old`` and ``new``."""
    settings = {"engine__slots": 1, "engine__threads": 1}
    environment = node_environment(name, broker.port, tmp_path, **settings)
    for model in ("old", "new"):
        pulled = edged(environment, "models", "pull", f"file:{BUNDLED_MODEL}", "--name", model)
        assert pulled.returncode == 0, pulled.stderr
    chosen = edged(environment, "models", "use", "old")
    assert "no daemon" in chosen.stdout
    with running(name, broker.port, tmp_path, **settings) as node:
        yield node


def without_numbers(target: Path) -> Path:
    """A well-formed model that cannot compute: its last norm is not a number."""
    shutil.copy(BUNDLED_MODEL, target)
    norm = read_header(target).tensors_by_name["output_norm.weight"]
    with target.open("r+b") as file:
        file.seek(norm.offset_bytes)
        file.write(np.full(norm.shape, np.nan, dtype=np.float32).tobytes())
    return target


@contextlib.contextmanager
def using(node: Node, model: str) -> Iterator["list[subprocess.CompletedProcess[str]]"]:
    """``edged models use`` while the worker stands still, so that what is asked before waits.

    The block runs before; the command's end is in the list afterwards.
    """
    worker = node.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    ended: list[subprocess.CompletedProcess[str]] = []
    yield ended
    command = threading.Thread(target=lambda: ended.append(node.command("models", "use", model)))
    command.start()
    node.wait_for_state("switching")
    os.kill(worker, signal.SIGCONT)
    command.join()


def served(node: Node) -> object:
    node.wait_for_state("serving")
    return node.card()["model"]


def test_a_chosen_model_is_served_after_those_who_are_being_answered(
    node: Node, client: BusClient
) -> None:
    assert served(node) == "old"
    with using(node, "new") as ended:
        prompts = [client.send_prompt(node.name, **LONG) for _ in range(6)]
    (used,) = ended

    assert used.returncode == 0, used.stderr
    assert f"{node.name} serves new" in used.stdout
    assert node.card()["model"] == "new"
    ends = [client.wait_for(lambda got: got.json["type"] in ("done", "failed")) for _ in prompts]
    assert {end.json["id"] for end in ends} == set(prompts)
    assert {end.json["type"] for end in ends} == {"done"}


def test_what_waits_is_held_against_the_new_model(node: Node, client: BusClient) -> None:
    with using(node, "new"):
        client.send_prompt(node.name, **LONG)
        asserting = client.send_prompt(node.name, prompt="hello", model="old")

    failed = client.wait_for(lambda got: got.json["type"] == "failed").json
    assert (failed["id"], failed["code"]) == (asserting, "unknown_model")
    assert failed["details"] == {"requested": "old", "served": "new"}


def test_a_model_that_fails_at_its_first_answer_gives_way_to_the_old_one(
    node: Node, client: BusClient, tmp_path: Path
) -> None:
    bad = without_numbers(tmp_path / "bad.gguf")
    assert node.command("models", "pull", f"file:{bad}", "--name", "bad").returncode == 0
    with using(node, "bad") as ended:
        prompts = [client.send_prompt(node.name, **LONG) for _ in range(6)]
    (used,) = ended

    assert used.returncode == 3
    assert "bad does not serve" in used.stderr
    assert "first answer" in used.stderr
    assert "went back to old" in used.stderr
    ends = [client.wait_for(lambda got: got.json["type"] in ("done", "failed")) for _ in prompts]
    assert {end.json["id"] for end in ends} == set(prompts)
    assert {end.json["type"] for end in ends} == {"done"}
    assert served(node) == "old"
    assert any("bad" in fault for fault in node.wait_for_state("serving")["faults"])
    assert client.ask(node.name, **LONG)[-1]["type"] == "done"


def test_a_damaged_model_is_refused_before_anything_is_stopped(
    node: Node, store: Path, client: BusClient
) -> None:
    pid = node.worker_pid()
    with (store / "new.gguf").open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    used = node.command("models", "use", "new")

    assert used.returncode == 3
    assert "is damaged" in used.stderr
    assert read_selection(store.parent / "state").model == "old"
    assert node.worker_pid() == pid
    assert client.ask(node.name, **LONG)[-1]["type"] == "done"


def test_an_unknown_model_is_refused_with_the_names_that_are_known(node: Node) -> None:
    used = node.command("models", "use", "nwe")

    assert used.returncode == 3
    assert "new, old" in used.stderr


def test_a_first_model_that_is_broken_gives_way_to_the_bundled_one(
    broker: Broker, tmp_path: Path, name: str
) -> None:
    bad = without_numbers(tmp_path / "bad.gguf")
    with running(name, broker.port, tmp_path, engine__threads=1) as node:
        assert node.command("models", "pull", f"file:{bad}", "--name", "bad").returncode == 0
        used = node.command("models", "use", "bad")

        assert used.returncode == 3
        assert "went back to what served before" in used.stderr
        assert served(node) == "edged-tiny-phi3"


def test_choosing_again_tells_the_daemon_again(node: Node, store: Path) -> None:
    for _ in range(2):
        used = node.command("models", "use", "new")
        assert used.returncode == 0, used.stderr
        assert f"{node.name} serves new" in used.stdout


def test_a_daemon_that_ends_is_not_waited_for(node: Node) -> None:
    os.kill(node.worker_pid(), signal.SIGSTOP)
    with BusClient(node.port) as client:
        client.send_prompt(node.name, **LONG)
    ended: list[subprocess.CompletedProcess[str]] = []
    command = threading.Thread(target=lambda: ended.append(node.command("models", "use", "new")))
    command.start()
    node.wait_for_state("switching")
    node.stop()
    command.join()

    assert ended[0].returncode == 1
    assert "has ended" in ended[0].stderr


def test_auto_leaves_the_choice_to_edged_again(node: Node, store: Path) -> None:
    used = node.command("models", "use", "auto")

    assert used.returncode == 0, used.stderr
    assert f"{node.name} serves" in used.stdout
    assert read_selection(store.parent / "state").model is None


def test_a_second_daemon_is_kept_from_the_same_state_directory(
    node: Node, broker: Broker, tmp_path: Path
) -> None:
    other = Node("other", broker.port, tmp_path, engine__name="echo")

    assert other.process.wait(30) == 2
    assert f"another daemon (process {node.process.pid})" in other.log


def test_after_a_stop_that_was_not_clean_the_weights_are_looked_at(
    broker: Broker, node: Node, name: str, store: Path, tmp_path: Path
) -> None:
    node.process.send_signal(signal.SIGKILL)
    node.process.wait(30)
    with (store / "old.gguf").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\0\1\2\3")
    with running(name, broker.port, tmp_path, engine__slots=1) as again:
        state = again.wait_for_state("serving")

        assert again.card()["model"] == "new"
        assert "instead of old, which is not usable" in str(state["reason"])
        assert any("old.gguf: is damaged" in fault for fault in state["faults"])
