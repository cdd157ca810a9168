"""``edged models``: what the store's commands print, refuse and leave behind."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gguf_files import write_phi3

from edged.cli.main import cli
from edged.errors import EdgedError, ModelFileError, PullError
from edged.models.convert import ensure_converted
from edged.models.partial import Record, exclusive, partial_of, partials
from edged.models.store import Store


class Operator:
    """Types commands on a machine with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self.state_dir = folder / "state"
        self.state_dir.mkdir()
        self._environment = {
            "EDGED_MODEL__STORE": str(self.store.folder),
            "EDGED_STATE_DIR": str(self.state_dir),
            "COLUMNS": "300",
        }

    def __call__(self, *arguments: str, answer: str = "", **environment: str) -> Result:
        return CliRunner().invoke(
            cli,
            ["models", *arguments],
            input=answer,
            env=self._environment | environment,
        )

    def refusal(self, kind: type[EdgedError], *arguments: str, **environment: str) -> str:
        result = self(*arguments, **environment)
        assert isinstance(result.exception, kind), result.output
        return str(result.exception)

    def uses(self, name: str) -> None:
        (self.state_dir / "model.json").write_text(json.dumps({"model": name, "since": 1}))

    def half(self, name: str) -> None:
        """A pull that got to 1 of 3 MiB."""
        target = f"hf:acme/phi/{name}.gguf"
        partial = partial_of(self.store.folder, target)
        with exclusive(self.store.folder, "test"):
            partial.write(
                Record(name=name, source=target, version="1", size_bytes=3 << 20, boot_id="")
            )
            partial.content.write_bytes(bytes(1 << 20))


@pytest.fixture
def operator(nothing_set: None, tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_phi3(tmp_path / "phi.gguf")


def row(result: Result, name: str) -> str:
    return next(line for line in result.stdout.splitlines() if f" {name} " in line)


def test_a_pulled_model_is_announced_and_listed(operator: Operator, model: Path) -> None:
    pulled = operator("pull", f"file:{model}")

    assert pulled.exit_code == 0, pulled.output
    assert pulled.stdout.startswith("phi has arrived: ")
    listed = row(operator("list"), "phi")
    for fact in ("Q4_0", "256", "SHA-256 computed", f"file:{model}"):
        assert fact in listed


def test_pulling_it_again_says_that_it_is_there(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")

    assert "is there already" in operator("pull", f"file:{model}").stdout


def test_a_name_can_be_chosen(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}", "--name", "kitchen")

    assert [stored.name for stored in operator.store.models()] == ["kitchen"]


def test_the_list_marks_the_one_that_is_set(operator: Operator, model: Path) -> None:
    path = operator.store.weights_path("phi")

    assert "→" in row(operator("list"), "edged-tiny-phi3")
    operator("pull", f"file:{model}")
    assert "the best that fits is served" in operator("list").output
    listed = operator("list", EDGED_MODEL__PATH=str(path))
    assert "→" in row(listed, "phi")
    assert "→" not in row(listed, "edged-tiny-phi3")


def test_the_list_shows_what_cannot_be_used_and_what_is_half_there(
    operator: Operator, model: Path
) -> None:
    operator("pull", f"file:{model}")
    operator.store.weights_path("phi").write_bytes(b"GGUF")
    operator.half("large")
    listed = operator("list")

    assert "unusable" in row(listed, "phi")
    assert "4 bytes instead of" in row(listed, "phi")
    assert "1 of 3" in row(listed, "large")
    assert "half arrived" in row(listed, "large")


def test_show_tells_of_a_stored_model_where_it_is_from(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")
    shown = operator("show", "phi").stdout

    for fact in ("Q4_0", f"file:{model}", "computed on arrival"):
        assert fact in shown


def test_show_takes_a_file_as_well(operator: Operator, model: Path) -> None:
    assert "Phi-3 of random weights" in operator("show", str(model)).stdout


def test_show_of_an_unknown_name_lists_the_known_ones(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")

    assert "it has: phi" in operator.refusal(ModelFileError, "show", "phi-9")


def test_verify_passes_what_is_whole(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")
    result = operator("verify")

    assert (result.exit_code, result.stdout) == (0, "phi: whole\n")


def test_verify_names_every_damaged_model_and_fails(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")
    operator("pull", f"file:{model}", "--name", "other")
    with operator.store.weights_path("phi").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    result = operator("verify")

    assert "phi: " in result.stdout
    assert "is damaged" in result.stdout
    assert "other: whole" in result.stdout
    assert isinstance(result.exception, ModelFileError)
    assert operator("verify", "other").exit_code == 0


def test_rm_asks_first(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")

    assert operator("rm", "phi", answer="n\n").exit_code == 1
    assert operator.store.find("phi").problem is None
    assert operator("rm", "phi", answer="y\n").exit_code == 0
    assert operator.store.models() == []


def test_rm_takes_the_conversion_too(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")
    conversion = ensure_converted(operator.store.weights_path("phi"), operator.state_dir)
    operator("rm", "phi", "-y")

    assert not conversion.exists()


def test_rm_refuses_the_model_in_use(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")
    operator.uses("phi")

    assert "is in use" in operator.refusal(EdgedError, "rm", "phi", "-y")
    operator.uses("another")
    assert operator("rm", "phi", "-y").exit_code == 0


def test_rm_refuses_the_model_that_is_set(operator: Operator, model: Path) -> None:
    operator("pull", f"file:{model}")
    path = str(operator.store.weights_path("phi"))

    assert "is in use" in operator.refusal(EdgedError, "rm", "phi", "-y", EDGED_MODEL__PATH=path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": null}'])
def test_rm_works_whatever_the_daemon_left(operator: Operator, model: Path, text: str) -> None:
    operator("pull", f"file:{model}")
    (operator.state_dir / "model.json").write_text(text)

    assert operator("rm", "phi", "-y").exit_code == 0


def test_rm_deletes_what_is_half_there(operator: Operator) -> None:
    operator.half("large")
    operator("rm", "large", "-y")

    assert partials(operator.store.folder) == []


def test_rm_leaves_what_is_arriving_alone(operator: Operator) -> None:
    operator.half("large")
    with exclusive(operator.store.folder, "edged models pull large"):
        assert "edged models pull large" in operator.refusal(PullError, "rm", "large", "-y")

    assert partials(operator.store.folder)


def test_rm_of_an_unknown_name_says_so(operator: Operator) -> None:
    assert "it has: none" in operator.refusal(ModelFileError, "rm", "phi", "-y")
