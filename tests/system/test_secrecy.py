"""Where what was said and what is secret does not end up."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded import GuardedBroker, Guest, guarded_node
from node import Node

ASKED = "the word is xylophone"
"""The echo engine answers with it, so it stands for the answer as well."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedBroker]:
    broker = GuardedBroker(
        tmp_path_factory.mktemp("broker"), "--nodes", "attic", "--clients", "hub"
    )
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def attic(broker: GuardedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that logs all it ever logs, and was asked something."""
    folder = tmp_path_factory.mktemp("attic")
    with guarded_node(broker, "attic", folder, log__level="DEBUG") as node:
        with broker.guest("hub") as hub:
            assert hub.asks(prompt=ASKED)[-1]["text"] == ASKED
            refuse(hub)
        yield node


def refuse(hub: Guest) -> None:
    """Prompts that cannot be taken, which are told of in the log."""
    for body in ({"prompt": ASKED, "temprature": 1}, {"prompt": ASKED, "reply_to": "home/lamp"}):
        assert hub.asks(**body)[-1]["type"] == "failed"


def test_no_level_logs_what_was_asked_or_answered(attic: Node) -> None:
    assert "rejected" in attic.log
    assert "xylophone" not in attic.log


def test_what_was_said_is_in_files_of_their_owner_alone(attic: Node) -> None:
    files = [file for file in attic.log_file.parent.rglob("*") if file.is_file()]
    holding = [file for file in files if b"xylophone" in file.read_bytes()]

    assert holding
    assert {stat.S_IMODE(file.stat().st_mode) for file in holding} == {0o600}


def test_a_nodes_password_is_in_no_log_environment_or_command_line(
    broker: GuardedBroker, attic: Node
) -> None:
    secret = broker.password("attic").encode()
    processes = [Path(f"/proc/{pid}") for pid in (attic.process.pid, attic.worker_pid())]
    seen = [
        attic.log.encode(),
        *(
            (process / name).read_bytes()
            for process in processes
            for name in ("environ", "cmdline")
        ),
    ]

    assert all(seen)
    assert not [each for each in seen if secret in each]
