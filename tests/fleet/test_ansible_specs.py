"""What the collection says of itself, held against what it is."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import edged

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "ansible"
ROLES = sorted(folder.name for folder in (COLLECTION / "roles").iterdir())


def read(*parts: str) -> Any:
    return yaml.safe_load(COLLECTION.joinpath(*parts).read_text())


def plain(value: Any) -> Any:
    """A text without the line breaks that its writing needed."""
    return " ".join(value.split()) if isinstance(value, str) else value


@pytest.mark.parametrize("role", ROLES)
def test_each_option_is_described_with_the_default_that_it_has(role: str) -> None:
    options = read("roles", role, "meta", "argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = read("roles", role, "defaults", "main.yml")

    described = {name: plain(option["default"]) for name, option in options.items()}
    assert described == {name: plain(value) for name, value in defaults.items()}


@pytest.mark.parametrize("role", ROLES)
def test_each_option_is_used(role: str) -> None:
    folder = COLLECTION / "roles" / role
    text = "".join(
        file.read_text()
        for part in ("tasks", "templates", "vars", "handlers", "defaults")
        for file in sorted((folder / part).glob("*"))
    )
    for name in read("roles", role, "defaults", "main.yml"):
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is used nowhere"


@pytest.mark.parametrize(
    ("role", "secrets"),
    [
        ("edged", {"edged_mqtt_password", "edged_credentials"}),
        ("mosquitto", {"mosquitto_passwords"}),
        ("board", set()),
    ],
)
def test_secrets_are_marked(role: str, secrets: set[str]) -> None:
    options = read("roles", role, "meta", "argument_specs.yml")["argument_specs"]["main"]["options"]

    assert {name for name, option in options.items() if option.get("no_log")} == secrets


def test_there_is_one_version() -> None:
    assert {
        read("galaxy.yml")["version"],
        read("roles", "edged", "defaults", "main.yml")["edged_version"],
        read("inventory", "example", "group_vars", "all", "main.yml")["edged_version"],
    } == {edged.__version__}


def test_the_engine_built_with_cuda_is_the_one_that_edged_wants() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"]["llama-cpp"]

    assert [read("roles", "edged", "defaults", "main.yml")["edged_cuda_engine"]] == wanted


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("roles/board/files/clock.conf", "systemd/drop-ins/clock.conf"),
        ("roles/board/files/edged-clock.conf", "systemd/edged-clock.tmpfiles"),
    ],
)
def test_files_that_stand_twice_are_the_same(ours: str, theirs: str) -> None:
    assert (COLLECTION / ours).read_text() == (ROOT / theirs).read_text()


def test_the_example_names_a_password_for_everyone() -> None:
    hosts = read("inventory", "example", "hosts.yml")
    everybody = read("inventory", "example", "group_vars", "all", "main.yml")
    nodes = [host for group in hosts["edged_nodes"]["children"].values() for host in group["hosts"]]
    vault = read("inventory", "example", "vault.example.yml")

    assert sorted(vault["vault_passwords"]) == sorted([*nodes, *everybody["mosquitto_clients"]])


def test_there_are_wheels_for_each_part_that_the_example_installs() -> None:
    """Nothing is fetched from an index while they are installed."""
    made = re.search(r'"\$PWD\[(.+)\]"', (ROOT / "tools/wheels").read_text())
    assert made is not None
    groups = sorted((COLLECTION / "inventory/example/group_vars").glob("*.yml"))
    wanted = read("roles", "edged", "defaults", "main.yml")["edged_extras"]
    for file in groups:
        wanted += yaml.safe_load(file.read_text()).get("edged_extras", [])

    assert set(wanted) <= set(made[1].split(","))


def test_the_example_names_profiles_that_there_are() -> None:
    groups = (COLLECTION / "inventory/example/group_vars").glob("*.yml")
    profiles = {yaml.safe_load(file.read_text())["edged_profile"] for file in groups}

    assert profiles <= {file.stem for file in (ROOT / "hw_profiles").glob("*.toml")}
    assert len(profiles) == 3
