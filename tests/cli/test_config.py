"""``edged config``, and how the command tells of errors."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from edged.cli.config import as_toml
from edged.cli.main import cli, main
from edged.errors import ConfigError
from edged.settings import ChatSettings, EngineSettings, MqttSettings, Settings

pytestmark = pytest.mark.usefixtures("nothing_set")


def edged(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def run_main(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["edged", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def read_back(shown: Settings) -> dict[str, Any]:
    return tomllib.loads(as_toml(shown))


# show


def test_show_prints_settings_that_read_as_toml() -> None:
    assert tomllib.loads(edged("config", "show").output)["mqtt"]["port"] == 1883


def test_show_prints_what_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_MQTT__PORT", "1999")

    assert tomllib.loads(edged("config", "show").output)["mqtt"]["port"] == 1999


def test_show_hides_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edged.mqtt.password").write_text("hunter2")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    output = edged("config", "show").output

    assert "hunter2" not in output
    assert 'password = "***' in output


def test_show_tells_an_unset_password_from_a_hidden_one() -> None:
    assert "# password is not set" in edged("config", "show").output


def test_show_reads_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "edged.toml"
    file.write_text('node = "attic"\n')

    assert 'node = "attic"' in edged("--config", str(file), "config", "show").output


def test_every_setting_is_shown_in_its_section() -> None:
    shown = as_toml(Settings(node="attic")).splitlines()

    for section in Settings.model_fields:
        assert section in ("node", "state_dir", "drain_s", "profile") or f"[{section}]" in shown


def test_what_is_shown_can_be_read_again() -> None:
    wanted = Settings(
        node="attic",
        mqtt=MqttSettings(reply_prefixes=("home/", 'with "quotes"/')),
        engine=EngineSettings(echo_step_ms=0.00001),
        chat=ChatSettings(system_prompt='Say "hi"\\n\nand more.'),
    )

    assert Settings(**read_back(wanted)) == wanted


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=100)
def test_every_text_is_shown_so_that_it_can_be_read_again(text: str) -> None:
    shown = Settings(node="attic", chat=ChatSettings(system_prompt=text))

    assert read_back(shown)["chat"]["system_prompt"] == text


@given(st.text("hunter2!", min_size=8, max_size=12))
@settings(max_examples=30)
def test_no_secret_is_ever_shown(secret: str) -> None:
    assert secret not in as_toml(Settings(node="x", mqtt=MqttSettings(password=SecretStr(secret))))


# check


def test_check_says_that_the_settings_are_valid() -> None:
    result = edged("config", "check")

    assert (result.exit_code, "valid" in result.output) == (0, True)


def test_check_names_the_file_that_was_given(tmp_path: Path) -> None:
    file = tmp_path / "edged.toml"
    file.write_text("")

    assert str(file) in edged("--config", str(file), "config", "check").output


def test_check_names_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "edged.toml"
    file.write_text("")
    monkeypatch.setenv("EDGED_CONFIG", str(file))

    assert str(file) in edged("config", "check").output


# Errors


def test_a_wrong_setting_is_one_line_on_stderr_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGED_MQTT__PORT", "many")
    code = run_main("config", "check", monkeypatch=monkeypatch)
    said = capsys.readouterr()

    assert (code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("edged: settings: mqtt.port: ")


def test_a_wrong_setting_is_raised_where_a_traceback_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGED_MQTT__PORT", "many")
    monkeypatch.setenv("EDGED_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["edged", "config", "check"])

    with pytest.raises(ConfigError):
        main()


def test_valid_settings_are_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main("config", "check", monkeypatch=monkeypatch) == 0


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["confgi"])

    assert (result.exit_code, "No such command" in result.output) == (2, True)
