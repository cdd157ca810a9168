"""What is wrong with the files of TLS, and what is said of it."""

from pathlib import Path

import paho.mqtt.client as paho
import pytest
from certificates import Authority, Certificate, openssl
from paho.mqtt.enums import CallbackAPIVersion

from edged.settings import BrokerAddress, MqttSettings
from edged.transports.security import ConnectFailure, configure, explain_alert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Certificate:
    return authority.issue("attic")


def loaded(settings: MqttSettings) -> None:
    """What happens before each connection."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    configure(client, settings)
    assert client.on_pre_connect is not None
    client.on_pre_connect(client, None)


def refusal(settings: MqttSettings) -> str:
    with pytest.raises(ConnectFailure) as caught:
        loaded(settings)
    return str(caught.value)


def test_a_certificate_with_its_key_is_taken(authority: Authority, ours: Certificate) -> None:
    loaded(
        MqttSettings(ca_file=authority.ca_file, cert_file=ours.cert_file, key_file=ours.key_file)
    )


def test_a_key_may_stand_in_the_file_of_its_certificate(folder: Path, ours: Certificate) -> None:
    both = folder / "both.pem"
    both.write_bytes(ours.cert_file.read_bytes() + ours.key_file.read_bytes())

    loaded(MqttSettings(cert_file=both))


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_file_that_is_not_there_is_named_with_its_setting(folder: Path, name: str) -> None:
    said = refusal(MqttSettings(**{name: folder / "absent.pem"}))

    assert said.startswith(f"mqtt.{name} {folder}/absent.pem cannot be read (No such file")


def test_a_key_that_is_not_there_is_named_with_its_setting(folder: Path, ours: Certificate) -> None:
    said = refusal(MqttSettings(cert_file=ours.cert_file, key_file=folder / "absent.key"))

    assert said.startswith(f"mqtt.key_file {folder}/absent.key cannot be read")


def test_an_authority_that_is_no_certificate_is_told_as_that(folder: Path) -> None:
    file = folder / "prose.pem"
    file.write_text("Trust me.\n")

    assert "prose.pem holds no certificate" in refusal(MqttSettings(ca_file=file))


def test_the_key_of_another_certificate_is_told_as_that(
    authority: Authority, ours: Certificate
) -> None:
    other = authority.issue("cellar")

    said = refusal(MqttSettings(cert_file=ours.cert_file, key_file=other.key_file))

    assert "key values mismatch" in said


def test_a_key_with_a_passphrase_is_not_asked_for_on_the_terminal(
    folder: Path, ours: Certificate
) -> None:
    locked = folder / "locked.key"
    openssl("pkey", "-in", ours.key_file, "-aes256", "-passout", "pass:x", "-out", locked)

    said = refusal(MqttSettings(cert_file=ours.cert_file, key_file=locked))

    assert f"the key in mqtt.key_file {locked} is encrypted" in said


def test_an_alert_of_the_broker_says_what_to_set() -> None:
    text = "failed to receive on socket: [SSL: X] tlsv13 alert certificate required (_ssl.c:2580)"

    assert "set mqtt.cert_file" in str(explain_alert(text, BrokerAddress("hub", 8883)))


def test_another_error_is_not_taken_for_an_alert() -> None:
    assert explain_alert("Connection reset by peer", BrokerAddress("hub", 8883)) is None
