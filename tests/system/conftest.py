from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_client import BusClient
from node import Broker, Node, running


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def echo(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that answers with the question, at once."""
    folder = tmp_path_factory.mktemp("echo")
    with running("echo", broker.port, folder, engine__name="echo") as node:
        yield node


@pytest.fixture(scope="session")
def slow(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that answers with the question, one byte in 100 ms."""
    folder = tmp_path_factory.mktemp("slow")
    settings = {"engine__name": "echo", "engine__echo_step_ms": 100, "queue__max_prompts": 3}
    with running("slow", broker.port, folder, **settings) as node:
        yield node


@pytest.fixture
def client(broker: Broker) -> Iterator[BusClient]:
    with BusClient(broker.port) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
