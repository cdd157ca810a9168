"""A node's MQTT client id."""

from pathlib import Path

import pytest

from edged.transports.identity import client_id

MACHINE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text(MACHINE + "\n")
    return tmp_path


def test_it_is_the_same_at_every_start(machine: Path) -> None:
    assert client_id("attic", machine) == client_id("attic", machine)


def test_it_names_the_node_for_who_reads_the_brokers_log(machine: Path) -> None:
    assert client_id("attic", machine).startswith("edged-attic-")


def test_on_another_machine_it_is_another(machine: Path) -> None:
    here = client_id("attic", machine)
    (machine / "etc/machine-id").write_text("f" * 32)

    assert client_id("attic", machine) != here


def test_two_nodes_of_a_machine_have_nothing_in_common_but_the_prefix(machine: Path) -> None:
    attic, cellar = (client_id(node, machine).split("-")[-1] for node in ("attic", "cellar"))

    assert attic != cellar


def test_the_machines_id_does_not_leave_it(machine: Path) -> None:
    assert MACHINE[:8] not in client_id("attic", machine)


@pytest.mark.parametrize("content", [None, "", "\n", "\xff"])
def test_a_machine_without_an_id_has_the_nodes_name_only(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/machine-id").write_text(content, "latin-1")

    assert client_id("attic", tmp_path) == "edged-attic"
