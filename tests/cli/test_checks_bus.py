"""Checks of ``edged doctor``: the secrets, and the broker that they open."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node import Broker, free_port
from pydantic import SecretStr

from edged.cli import checks_bus
from edged.settings import MqttSettings

pytestmark = pytest.mark.usefixtures("operator_folder")


# Credentials


def test_a_credential_is_named_and_an_empty_one_told(tmp_path: Path) -> None:
    (tmp_path / "edged.mqtt.password").write_text("secret")
    (tmp_path / "edged.model.hub_token").write_text("")

    empty, all_of_them = checks_bus.credential_files(tmp_path, Path("/"))

    assert (empty.outcome, "edged.model.hub_token is empty" in empty.found) == ("warning", True)
    assert "edged.model.hub_token, edged.mqtt.password" in all_of_them.found
    assert "secret" not in all_of_them.found


def test_the_services_own_credentials_are_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "run/credentials/edged.service").mkdir(parents=True)

    (finding,) = checks_bus.credential_files(None, tmp_path)

    assert finding.outcome == "warning"
    assert "CREDENTIALS_DIRECTORY=/run/credentials/edged.service" in (finding.remedy or "")


def test_a_folder_of_credentials_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    (finding,) = checks_bus.credential_files(tmp_path / "gone", Path("/"))

    assert finding.outcome == "failure"


def test_a_user_without_password_is_a_warning_and_so_is_the_reverse() -> None:
    (user,) = checks_bus.user_and_password(MqttSettings(username="edged"))
    (password,) = checks_bus.user_and_password(MqttSettings(password=SecretStr("x")))

    assert "without a password" in user.found
    assert "not used without mqtt.username" in password.found
    assert not list(
        checks_bus.user_and_password(MqttSettings(username="edged", password=SecretStr("x")))
    )


# The broker


@pytest.fixture
def guarded_broker(tmp_path: Path) -> Iterator[Broker]:
    """One that lets in the user edged with the password right."""
    passwords = tmp_path / "passwd"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "edged", "right"], check=True)
    # Started by root, Mosquitto would give up the right to read what is pytest's.
    extra = f"allow_anonymous false\npassword_file {passwords}\nuser root\n"
    broker = Broker(tmp_path, extra)
    broker.start()
    yield broker
    broker.stop()


def at(port: int, **more: Any) -> MqttSettings:
    return MqttSettings(host="127.0.0.1", port=port, tls=False, **more)


@pytest.mark.parametrize(("protocol", "spoken"), [("auto", "5"), ("3.1.1", "3.1.1")])
def test_a_broker_that_lets_us_in_is_well(broker: Broker, protocol: str, spoken: str) -> None:
    finding = checks_bus.broker(at(broker.port, protocol=protocol))

    assert finding.outcome == "ok"
    assert re.fullmatch(
        rf"127.0.0.1:\d+ lets us in with MQTT {re.escape(spoken)}, after \d+ ms", finding.found
    )


def test_a_port_where_nothing_listens_is_refused() -> None:
    finding = checks_bus.broker(at(free_port()))

    assert (finding.outcome, "connection refused" in finding.found) == ("failure", True)
    assert "systemctl start mosquitto" in (finding.remedy or "")


def test_a_name_that_nobody_knows_is_told_as_that() -> None:
    finding = checks_bus.broker(MqttSettings(host="broker.invalid"))

    assert (finding.outcome, "broker.invalid is not known" in finding.found) == ("failure", True)


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
def test_what_cannot_be_a_name_is_no_traceback(host: str) -> None:
    assert checks_bus.broker(MqttSettings(host=host)).outcome == "failure"


def test_a_broker_that_wants_a_user_says_how_to_give_one(guarded_broker: Broker) -> None:
    finding = checks_bus.broker(at(guarded_broker.port))

    assert (finding.outcome, "Not authorized" in finding.found) == ("failure", True)
    assert "set mqtt.username" in (finding.remedy or "")


def test_a_wrong_password_is_told_with_its_user_and_without_itself(
    guarded_broker: Broker,
) -> None:
    settings = at(guarded_broker.port, username="edged", password=SecretStr("wrong"))

    finding = checks_bus.broker(settings)

    assert finding.outcome == "failure"
    assert "password of edged" in (finding.remedy or "")
    assert "wrong" not in f"{finding.found}{finding.remedy}"


def test_the_right_password_is_let_in(guarded_broker: Broker) -> None:
    settings = at(guarded_broker.port, username="edged", password=SecretStr("right"))

    assert ", as edged, after" in checks_bus.broker(settings).found


def test_what_listens_and_is_no_broker_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.cli.bus.CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        finding = checks_bus.broker(at(silent.getsockname()[1]))

    assert (finding.outcome, "does not answer in MQTT" in finding.found) == ("failure", True)
