"""What a node says of itself, and what it is made of."""

from pathlib import Path

import pytest
from bus_client import BusClient
from node import Broker, Node, running


def test_status_card_and_state_are_retained(echo: Node, client: BusClient) -> None:
    for topic in ("status", "card", "state"):
        client.subscribe(f"edged/v1/echo/{topic}")
    got = {message.topic.split("/")[-1]: message for message in (client.next() for _ in range(3))}
    assert all(message.retain for message in got.values())
    assert got["status"].payload == b"online"
    card, state = got["card"].json, got["state"].json
    assert card["node"] == "echo"
    assert (card["engine"], card["model"], card["ctx"], card["slots"]) == ("echo", "echo", 4096, 1)
    assert state["model_state"] == "serving"
    assert state["level"] == "nominal"
    assert state["memory"]["available_bytes"] > 0
    assert state["memory"]["worker_bytes"] > 0
    assert state["faults"] == []


def test_the_state_tells_who_is_active_and_who_waits(slow: Node, client: BusClient) -> None:
    client.subscribe("edged/v1/slow/state")
    client.publish("edged/v1/slow/prompt", "x" * 40)
    client.publish("edged/v1/slow/prompt", "y")
    client.wait_for(lambda got: (got.json["active"], got.json["queued"]) == (1, 1))
    client.wait_for(lambda got: (got.json["active"], got.json["queued"]) == (0, 0))


def test_the_daemon_is_small_and_has_no_inference_in_it(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the bundled model served, and after it has answered."""
    with (
        running("small", broker.port, tmp_path) as node,
        BusClient(broker.port) as client,
    ):
        for _ in range(20):
            assert client.ask("small", prompt="turn on the kitchen light")[-1]["type"] == "done"
        proc = Path(f"/proc/{node.process.pid}")
        resident_kib = next(
            int(line.split()[1])
            for line in (proc / "status").read_text().splitlines()
            if line.startswith("VmRSS:")
        )
        maps = (proc / "maps").read_text()
        with capsys.disabled():
            print(f"\nthe daemon: {resident_kib * 1024 / 1e6:.1f} MB resident")  # noqa: T201
        assert resident_kib * 1024 < 50e6
        for library in ("numpy", "llama", "ggml", "ctransformers"):
            assert library not in maps
        worker_maps = Path(f"/proc/{node.worker_pid()}/maps").read_text()
        assert "numpy" in worker_maps
