"""A real node in a real memory group, and a neighbour that grows until little is left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bus_client import PATIENCE_S, BusClient
from cgroup import MemoryGroup, memory_group
from memory_neighbour import Neighbour
from node import Broker, Node, running

pytest.importorskip("llama_cpp")

MIB = 2**20
LIMIT_MIB = 900
STEP_MIB, EVERY_S = 10, 0.3
"""Some 30 MiB a second: fast for a board, slow enough to see each step."""
LEVEL_S = 6 * PATIENCE_S
"""Each step back waits for ten seconds of better times."""


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group(LIMIT_MIB * MIB) as group:
        yield group


@pytest.fixture
def node(broker: Broker, tmp_path: Path, group: MemoryGroup) -> Iterator[Node]:
    with running(
        "tight", broker.port, tmp_path, group=group.folder, engine__name="llama_cpp"
    ) as node:
        yield node


@pytest.fixture
def watcher(broker: Broker) -> Iterator[BusClient]:
    with BusClient(broker.port) as client:
        client.subscribe("edged/v1/tight/state")
        yield client


def wait_for(watcher: BusClient, **wanted: object) -> dict[str, Any]:
    return watcher.wait_for(
        lambda got: wanted.items() <= got.json.items(), LEVEL_S, what=f"a state with {wanted}"
    ).json


def ends_of(client: BusClient, prompts: set[str]) -> dict[str, dict[str, Any]]:
    """The terminal messages of all of them."""
    ends: dict[str, dict[str, Any]] = {}
    while prompts - ends.keys():
        got = client.wait_for(lambda got: "/completion/" in got.topic, what="a terminal").json
        if got["type"] in ("done", "failed"):
            ends[got["id"]] = got
    return ends


def test_a_growing_neighbour_costs_memory_step_by_step_and_nobodys_prompt(
    node: Node, group: MemoryGroup, watcher: BusClient, broker: Broker
) -> None:
    wait_for(watcher, level="nominal", model_state="serving")
    levels: list[str] = []
    with BusClient(broker.port) as client, Neighbour(group.folder, STEP_MIB, EVERY_S) as neighbour:
        prompts = set()
        while "paused" not in levels:
            prompts.add(client.send_prompt("tight", prompt="turn on the lamp in the kitchen"))
            neighbour.grown_mib()
            while not watcher.inbox.empty():
                levels.append(watcher.next().json["level"])
        neighbour.hold()
        prompts.add(client.send_prompt("tight", prompt="turn off the lamp in the kitchen"))
        unloaded = wait_for(watcher, model_state="unloaded")
        neighbour.end()
        ends = ends_of(client, prompts)
        wait_for(watcher, level="nominal", model_state="serving")

    assert group.oom_kills == 0
    assert "trimmed" in levels
    assert unloaded["memory"]["worker_bytes"] is None
    assert {end["type"] for end in ends.values()} == {"done"}
    assert {end["finish_reason"] for end in ends.values()} == {"stop"}
