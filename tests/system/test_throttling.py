"""A real node on a simulated board: what heat does to prompts, and what they are told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board import Board
from bus_client import PATIENCE_S, BusClient, text_of
from node import Broker, Node, running

TEXT = "The quick brown fox jumps over the lazy dog. " * 11 + "The end."
STEP_MS = 30
"""A byte a step, so that the text takes some time."""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    yield board
    board.close()


@pytest.fixture
def node(broker: Broker, tmp_path: Path, board: Board) -> Iterator[Node]:
    settings = {
        "profile": "pi5-8gb",
        "throttle__root": tmp_path / "board",
        "engine__name": "echo",
        "engine__echo_step_ms": STEP_MS,
        "sampling__max_tokens": len(TEXT) + 1,
    }
    with running("hot", broker.port, tmp_path, **settings) as node:
        yield node


@pytest.fixture
def watcher(broker: Broker) -> Iterator[BusClient]:
    """Hears the node's state, and nothing else."""
    with BusClient(broker.port) as client:
        client.subscribe("edged/v1/hot/state")
        yield client


def wait_for(watcher: BusClient, **wanted: object) -> dict[str, Any]:
    """The first state from now on that says so."""
    return watcher.wait_for(
        lambda got: wanted.items() <= got.json.items(),
        timeout_s=3 * PATIENCE_S,  # it is called better when it has been so for a while
        what=f"a state with {wanted}",
    ).json


def test_a_cool_board_says_how_warm_it_is(node: Node, watcher: BusClient) -> None:
    state = wait_for(watcher, sensor="cpu-thermal")

    assert (state["level"], state["limit_c"]) == ("nominal", 80.0)
    assert state["temperature_c"] == pytest.approx(50, abs=0.3)


def test_a_stream_stays_whole_through_a_pause(
    node: Node, board: Board, watcher: BusClient, client: BusClient
) -> None:
    prompt = client.send_prompt("hot", prompt=TEXT)
    wait_for(watcher, active=1)
    board.heat(84)
    paused = wait_for(watcher, level="paused")
    board.heat(60)
    wait_for(watcher, level="nominal")
    replies = list(client.replies(prompt))

    assert str(paused["reason"]).startswith("cpu-thermal: ")
    assert (replies[-1]["type"], replies[-1]["text"]) == ("done", TEXT)
    assert text_of(replies) == TEXT


def test_who_is_being_answered_is_told_of_a_pause(
    node: Node, board: Board, watcher: BusClient, client: BusClient
) -> None:
    prompt = client.send_prompt("hot", prompt=TEXT)
    wait_for(watcher, active=1)
    board.heat(84)
    waiting = next(reply for reply in client.replies(prompt) if reply["type"] == "waiting")

    assert waiting["level"] == "paused"
    assert waiting["reason"].startswith("cpu-thermal: ")


def test_a_pause_produces_nothing(
    node: Node, board: Board, watcher: BusClient, client: BusClient
) -> None:
    client.send_prompt("hot", prompt=TEXT)
    wait_for(watcher, active=1)
    board.heat(84)
    wait_for(watcher, level="paused", tokens_per_s=0.0)
    client.inbox.queue.clear()

    client.nothing_more(quiet_s=2.0)


def test_a_board_about_to_switch_off_ends_what_it_was_answering(
    node: Node, board: Board, watcher: BusClient, client: BusClient
) -> None:
    prompt = client.send_prompt("hot", prompt=TEXT)
    wait_for(watcher, active=1)
    board.heat(106)
    *_, failed = client.replies(prompt)

    assert (failed["code"], failed["status"], failed["retryable"]) == ("overheated", 503, True)
    assert failed["details"]["temperature_c"] == pytest.approx(106, abs=1.5)


def test_after_that_it_answers_again(
    node: Node, board: Board, watcher: BusClient, client: BusClient
) -> None:
    client.send_prompt("hot", prompt=TEXT)
    wait_for(watcher, active=1)
    board.heat(106)
    wait_for(watcher, active=0)
    later = client.send_prompt("hot", prompt="hello")
    board.heat(60)
    *_, done = (reply for reply in client.replies(later))

    assert done["text"] == "hello"


def test_a_lost_sensor_is_named_and_the_answer_goes_on(
    node: Node, board: Board, watcher: BusClient, client: BusClient
) -> None:
    prompt = client.send_prompt("hot", prompt=TEXT[:99])
    wait_for(watcher, active=1)
    board.lose()
    state = wait_for(watcher, temperature_c=None)
    *_, done = client.replies(prompt)

    assert "cpu-thermal" in " ".join(state["faults"])
    assert done["text"] == TEXT[:99]
