"""Two real nodes that answer the prompts of one pool on one broker."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board import Board
from bus_client import BusClient
from node import Broker, Node, edged, node_environment, running

STEP_MS = 20


def member(name: str, broker: Broker, folder: Path, **settings: object) -> Any:
    """A node of the pool ``house``."""
    given = {"engine__name": "echo", "mqtt__pools": '["house"]'} | settings
    return running(name, broker.port, folder, **given)


def ask_pool(client: BusClient, count: int, prefix: str, **body: object) -> list[str]:
    """Publish so many prompts; returns their ids."""
    ids = [f"{prefix}-{number}" for number in range(count)]
    for prompt_id in ids:
        client.publish("edged/v1/pool/house/prompt/kitchen", {"id": prompt_id, **body})
    return ids


def answers(client: BusClient, count: int) -> list[tuple[str, str]]:
    """Node and id of the results, as they come; no more of them follow."""
    got = []
    while len(got) < count:
        message = client.wait_for(lambda got: got.json["type"] == "done", what="a result")
        got.append((message.topic.split("/")[2], message.json["id"]))
    with contextlib.suppress(AssertionError):
        late = client.wait_for(lambda got: got.json["type"] == "done", timeout_s=0.5)
        pytest.fail(f"one more: {late}")
    return got


@pytest.fixture
def kitchen(broker: Broker) -> Iterator[BusClient]:
    """Hears the answers of every node to the client ``kitchen``."""
    with BusClient(broker.port) as client:
        client.subscribe("edged/v1/+/completion/kitchen/#")
        yield client


@pytest.fixture
def cellar(broker: Broker, tmp_path: Path) -> Iterator[Node]:
    folder = tmp_path / "cellar"
    folder.mkdir()
    with member("cellar", broker, folder) as node:
        node.wait_for_log("joined the pools: house")
        yield node


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    yield board
    board.close()


@pytest.fixture
def attic(broker: Broker, tmp_path: Path, board: Board) -> Iterator[Node]:
    """On a simulated board."""
    folder = tmp_path / "attic"
    folder.mkdir()
    settings = {"profile": "pi5-8gb", "throttle__root": tmp_path / "board"}
    settings |= {"engine__echo_step_ms": STEP_MS, "drain_s": 30}
    with member("attic", broker, folder, **settings) as node:
        node.wait_for_log("joined the pools: house")
        yield node


def test_every_prompt_is_answered_once_by_one_of_both(
    attic: Node, cellar: Node, kitchen: BusClient
) -> None:
    ids = ask_pool(kitchen, 20, "both", prompt="hi")
    got = answers(kitchen, 20)

    assert sorted(prompt_id for _, prompt_id in got) == sorted(ids)
    assert {node for node, _ in got} == {"attic", "cellar"}


def test_a_node_that_is_too_hot_leaves_its_share_to_the_other_and_comes_back(
    attic: Node, cellar: Node, kitchen: BusClient, board: Board
) -> None:
    # A paused node is one that has something to pause.
    kitchen.publish("edged/v1/attic/prompt", {"id": "long", "prompt": "x" * 300})
    board.heat(84)
    attic.wait_for_log("left the pools: house")
    ids = ask_pool(kitchen, 10, "hot", prompt="hi")
    assert answers(kitchen, 10) == [("cellar", prompt_id) for prompt_id in ids]

    joined = attic.log.count("joined the pools")
    board.heat(50)
    attic.wait_for_log("joined the pools", joined + 1)
    ask_pool(kitchen, 10, "cool", prompt="hi")
    assert {node for node, _ in answers(kitchen, 10)} == {"attic", "cellar"}


def test_a_node_that_stops_leaves_before_it_has_answered_who_it_is_answering(
    attic: Node, cellar: Node, kitchen: BusClient
) -> None:
    kitchen.publish("edged/v1/attic/prompt/kitchen", {"id": "long", "prompt": "x" * 150})
    kitchen.wait_for(lambda got: got.json["type"] == "delta", what="the first of the answer")
    attic.process.terminate()
    attic.wait_for_log("left the pools: house")
    ids = ask_pool(kitchen, 10, "stopping", prompt="hi")

    assert sorted(answers(kitchen, 11)) == sorted(
        [("attic", "long"), *(("cellar", prompt_id) for prompt_id in ids)]
    )


def test_the_card_names_the_pools(cellar: Node) -> None:
    assert cellar.card()["pools"] == ["house"]


@pytest.mark.parametrize("name", ["house", "pool"])
def test_a_node_cannot_be_called_like_a_pool(name: str, tmp_path: Path) -> None:
    run = edged(node_environment(name, 1, tmp_path, mqtt__pools='["house"]'), "config", "check")

    assert run.returncode == 2
    assert f"settings: node: {name} is the name of a pool" in run.stderr


def test_a_node_whose_model_was_unloaded_for_want_of_prompts_stays_in_its_pools(
    broker: Broker, kitchen: BusClient, tmp_path: Path
) -> None:
    given = {"engine__name": "echo", "mqtt__pools": '["house"]', "memory__keep_alive_s": 1}
    node = Node("sleepy", broker.port, tmp_path, **given)
    try:
        node.wait_for_state("unloaded")
        time.sleep(2)  # in which it could have left
        kitchen.publish("edged/v1/pool/house/prompt/kitchen", {"id": "wakes it", "prompt": "hi"})
        assert answers(kitchen, 1) == [("sleepy", "wakes it")]
    finally:
        node.stop()
