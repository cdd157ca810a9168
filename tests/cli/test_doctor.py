"""``edged doctor``: what is wrong, what to do, and what it comes to."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edged.cli import checks, doctor
from edged.cli.main import cli
from edged.errors import BrokerError
from edged.hardware.health import Finding, failure, not_applicable, ok, warning
from edged.settings import Settings
from tests.cli.findings import finds

DOCUMENT = Path(__file__).parents[2] / "docs" / "doctor.md"
pytestmark = pytest.mark.usefixtures("operator_folder")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the checks by these."""

    def instead(**given: Callable[[checks.Node], Iterator[Finding]]) -> None:
        monkeypatch.setattr(checks, "CHECKS", given)

    return instead


def edged(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def saying(*findings: Finding) -> Callable[[checks.Node], Iterator[Finding]]:
    return lambda node: iter(findings)


# What it comes to


@pytest.mark.parametrize(
    ("findings", "code", "last"),
    [
        ([ok("a"), not_applicable("b")], 0, "All is well."),
        ([ok("a"), warning("b")], 1, "edged works, with 1 warning."),
        (
            [warning("a"), failure("b"), warning("c")],
            2,
            "edged will not work: 1 failure and 2 warnings.",
        ),
    ],
)
def test_the_exit_code_and_the_last_line_say_what_it_comes_to(
    only: Callable[..., None], findings: list[Finding], code: int, last: str
) -> None:
    only(disk=saying(*findings))

    result = edged("doctor")

    assert result.exit_code == code
    assert result.output.splitlines()[-1] == last


def test_json_is_as_documented(only: Callable[..., None]) -> None:
    only(clock=saying(warning("late", "set it")), disk=saying(ok("room"), not_applicable("card")))

    result = edged("doctor", "--json")

    (documented,) = re.findall(r"## JSON\n\n(.*?)\n\n`", DOCUMENT.read_text(), re.DOTALL)
    answer = json.loads(result.output)
    assert result.exit_code == 1
    assert answer == {
        "outcome": "warning",
        "checks": [
            {"name": "clock", "outcome": "warning", "found": "late", "remedy": "set it"},
            {"name": "disk", "outcome": "ok", "found": "room", "remedy": None},
            {"name": "disk", "outcome": "not applicable", "found": "card", "remedy": None},
        ],
    }
    example = json.loads(documented)
    assert example.keys() == answer.keys()
    assert example["checks"][0].keys() == answer["checks"][0].keys()


def test_every_check_is_documented_in_its_order() -> None:
    table = DOCUMENT.read_text().partition("## What is checked")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(checks.CHECKS)


# What it looks like


def test_remedies_stand_below_with_the_name_of_their_check(only: Callable[..., None]) -> None:
    only(broker=saying(failure("nothing listens", "start it")), disk=saying(ok("room")))

    assert edged("doctor").output == (
        "✗ broker        nothing listens\n"
        "✓ disk          room\n"
        "\n"
        "What to do:\n"
        "  broker        start it\n"
        "\n"
        "edged will not work: 1 failure.\n"
    )


def test_a_program_gets_each_finding_in_one_line(only: Callable[..., None]) -> None:
    only(disk=saying(warning("word " * 60, "more " * 60)))

    lines = edged("doctor").output.splitlines()

    assert [len(line.split()) for line in lines] == [62, 0, 3, 61, 0, 5]


def test_a_terminal_of_80_columns_is_enough() -> None:
    results = [("permissions", warning("word " * 60, "more " * 60))]

    lines = list(doctor._report(results, 80))

    plain = [re.sub("\x1b\\[\\d+m", "", line) for text in lines for line in text.splitlines()]
    assert max(map(len, plain)) <= 80
    assert sum("word" in line for line in plain) > 1


def test_a_terminal_without_our_signs_gets_others() -> None:
    assert doctor._printable("✓ ✗ – 50 °C", "ascii") == "+ x - 50 ?C"
    assert doctor._printable("✓ ✗ – 50 °C", "utf-8") == "✓ ✗ – 50 °C"


# Whatever is broken


def test_a_check_that_fails_itself_is_a_finding_and_stops_no_other(
    only: Callable[..., None],
) -> None:
    def broken(node: checks.Node) -> Iterator[Finding]:
        yield ok("so far")
        raise ZeroDivisionError("by zero")

    only(disk=broken, swap=saying(ok("none")))

    result = edged("doctor")

    assert result.exit_code == 2
    assert "✓ disk          so far" in result.output
    assert "the check itself failed: ZeroDivisionError: by zero" in result.output
    assert "✓ swap          none" in result.output


def test_a_failure_that_edged_knows_is_told_in_its_words(only: Callable[..., None]) -> None:
    def broken(node: checks.Node) -> Iterator[Finding]:
        raise BrokerError("no broker at all")
        yield

    only(broker=broken)

    assert "✗ broker        no broker at all\n" in edged("doctor").output


def test_what_this_user_may_not_look_at_is_told_as_that(only: Callable[..., None]) -> None:
    def closed(node: checks.Node) -> Iterator[Finding]:
        raise PermissionError(13, "Permission denied", "/root/state")
        yield

    only(disk=closed)

    assert "/root/state may not be looked at by this user\n" in edged("doctor").output


def test_a_check_that_hangs_is_left_behind() -> None:
    gate = threading.Event()

    def hanging(node: checks.Node) -> Iterator[Finding]:
        gate.wait()
        yield ok("at last")

    findings = checks.guarded(hanging, checks.Node(None), limit_s=0.05)
    gate.set()

    assert findings == [failure("the check did not end within 0.05 s")]


def test_wrong_settings_are_a_failure_and_the_machine_is_checked_all_the_same(
    tmp_path: Path,
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text("[mqtt]\nport = 70000\n")

    result = edged("--config", str(config), "doctor", "--json")

    found = {each["name"]: each for each in json.loads(result.output)["checks"]}
    assert result.exit_code == 2
    assert "mqtt.port" in found["settings"]["found"]
    assert found["settings"]["remedy"] == "correct it, then: edged config check"
    for name in ("broker", "model", "disk", "permissions", "daemon"):
        assert found[name]["outcome"] == "not applicable"
    for name in ("profile", "cgroup", "pressure", "clock", "swap"):
        assert "settings" not in found[name]["found"]


def test_settings_that_break_pydantic_itself_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(config: Path | None) -> Settings:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(checks, "load_settings", homeless)

    (finding,) = finds("settings")

    assert finding.found == "settings: RuntimeError: Could not determine home directory."


def test_a_tool_that_looks_leaves_nothing_behind(tmp_path: Path) -> None:
    edged("doctor", "--json")

    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "store").exists()
