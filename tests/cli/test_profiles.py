"""``edged profiles``."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edged.cli.main import cli
from edged.errors import ConfigError


@pytest.fixture(autouse=True)
def _wide_screen(operator_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def edged(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["profiles", *arguments], catch_exceptions=False)


def row(output: str, name: str) -> str:
    return next(line for line in output.splitlines() if f" {name} " in line)


def test_list_shows_every_profile_with_its_figures() -> None:
    shown = row(edged("list").output, "pi5-8gb")

    for figure in ("Raspberry Pi 5, 8 GB", "7.8 GiB", "10.3 GB/s", "3 tokens/s", "shipped"):
        assert figure in shown


def test_list_marks_exactly_one_as_this_machines(operator_folder: Path) -> None:
    (operator_folder / "here.toml").write_text(
        'extends = "generic-x86_64"\ndescription = "here"\n[[match]]\nmemory_mib = [1, 9999999]\n'
    )

    marked = [line for line in edged("list").output.splitlines() if "→" in line]

    assert len(marked) == 1
    assert str(operator_folder / "here.toml") in marked[0]


def test_list_shows_what_is_wrong_with_a_file_beside_the_good_ones(operator_folder: Path) -> None:
    (operator_folder / "mine.toml").write_text('extends = "pi5-8gb"\ncolour = "white"\n')

    output = edged("list").output

    assert "line 2: colour: is not known" in row(output, "mine")
    assert "10.3 GB/s" in row(output, "pi5-8gb")


def test_show_gives_every_value_with_its_unit_merged() -> None:
    output = edged("show", "pi5-16gb").output

    for label, value in (
        ("memory total", "16215 MiB"),
        ("bandwidth decode", "11.2 GB/s"),
        ("cpu max", "2400 MHz"),
        ("thermal act", "75 °C"),
        ("thermal cooling bare stages 2", "r 10 K/W; tau 300 s"),
        ("engine cmake GGML_NATIVE", "OFF"),
    ):
        assert re.search(rf"{re.escape(label)} +│ {re.escape(value)} ", output), label


def test_show_json_is_the_profile() -> None:
    shown = json.loads(edged("show", "rtx3060-12gb", "--json").output)

    assert shown["memory"]["vram_mib"] == 12288


def test_show_of_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known are: generic-aarch64"):
        edged("show", "nix")


def test_detect_says_which_and_why_and_what_memory_there_is(tmp_path: Path) -> None:
    output = edged("detect").output

    assert re.search(r"profile +│ \S+: ", output)
    assert re.search(r"available now +│ [\d.]+ GiB, limited by ", output)
    assert re.search(r"decodes at +│ [\d.]+ GB/s", output)


def test_detect_json_is_for_programs(tmp_path: Path) -> None:
    shown = json.loads(edged("detect", "--json").output)

    assert shown["available"]["bytes"] > 0
    assert shown["decode_bytes_per_s"] > 0
    assert shown["evidence"]
    assert shown["merged"]["name"] == shown["profile"]


def test_detect_tells_of_a_broken_file(operator_folder: Path) -> None:
    (operator_folder / "mine.toml").write_text("= 3\n")

    evidence = json.loads(edged("detect", "--json").output)["evidence"]

    assert f"left out: hardware profile {operator_folder}/mine.toml, line 1" in evidence[-1]
