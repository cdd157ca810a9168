"""``edged simulate``: short runs of the simulated board."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edged.cli import simulate as simulate_module
from edged.cli.main import cli
from edged.errors import ConfigError, EdgedError

DOC = Path(__file__).parents[2] / "docs/throttling-twin.md"
SHORT = ("--minutes", "1")


def edged(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *SHORT, *arguments], catch_exceptions=False)


def test_programs_get_every_figure_and_the_document_explains_it():
    results = json.loads(edged("--workload", "voice", "--minutes", "3", "--json").stdout)

    assert set(results) >= {
        *("tokens", "oracle_tokens", "seconds_above_limit", "peak_c", "joules"),
        *("first_token_s", "unthrottled_first_token_s", "levels"),
    }
    assert set(results["first_token_s"]) == {"p50", "p95"}
    assert set(results["levels"]) == {"nominal", "trimmed", "throttled", "paused"}
    assert sum(results["levels"].values()) == 180
    text = DOC.read_text()
    assert [key for key in results if f"`{key}`" not in text] == []


def test_people_get_a_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    output = edged("--case", "closed", "--ambient", "22:40@30").stdout

    assert output.startswith("pi5-8gb · closed · 22:40@30 °C · steady · 1 min · governor\n")
    assert re.search(r"\nabove the limit +0\.0 s", output)
    assert re.search(r"\nnominal +█+ +60\.0 s\n", output)
    assert max(map(len, output.splitlines())) <= 100
    assert "\x1b" not in output


def test_the_oracle_is_compared_with_itself():
    results = json.loads(edged("--policy", "oracle", "--json").stdout)

    assert results["tokens"] == results["oracle_tokens"]


def test_without_the_clock_programs_are_told_so():
    assert json.loads(edged("--no-clock", "--json").stdout)["clock"] is False


def test_a_picture_is_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib")
    edged("--plot", str(tmp_path / "run.png"))

    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_no_picture_is_promised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(simulate_module.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(EdgedError, match="pip install matplotlib"):
        edged("--plot", "run.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--case", "fridge"), "knows no case fridge"),
        (("--ambient", "hot"), "'hot' is no ambient temperature"),
        (("--profile", "pi9"), "there is no hardware profile pi9"),
        (("--profile", "rtx3060-12gb"), "to simulate; pi5-8gb has"),
    ],
)
def test_what_cannot_be_simulated_is_an_error(arguments: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        edged(*arguments)
