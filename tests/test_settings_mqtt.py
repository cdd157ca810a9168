"""Which brokers are tried, and when with TLS."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edged.settings import MqttSettings, describe_validation


def settings(**given: Any) -> MqttSettings:
    return MqttSettings.model_validate(given)


def refusal(**given: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(**given)
    return describe_validation(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"username": "attic"}, {"cert_file": Path("our.pem")}, {"ca_file": Path("authority.pem")}],
    ids=lambda given: str(next(iter(given))),
)
def test_credentials_go_over_tls(given: dict[str, Any]) -> None:
    mqtt = settings(**given)

    assert (mqtt.tls, mqtt.tls_verify, mqtt.port) == (True, True, 8883)


def test_without_credentials_there_is_no_tls() -> None:
    assert (settings().tls, settings().port) == (False, 1883)


def test_a_user_without_tls_has_to_be_meant() -> None:
    mqtt = settings(username="attic", tls=False)

    assert (mqtt.tls, mqtt.port) == (False, 1883)


def test_a_port_that_is_given_holds_with_tls_too() -> None:
    assert settings(tls=True, port=1884).port == 1884


def test_a_key_without_its_certificate_is_refused() -> None:
    assert "key_file is set without cert_file" in refusal(key_file="our.key")


def test_a_fallback_without_a_port_has_that_of_its_kind() -> None:
    mqtt = settings(port=1, fallbacks=["hub2", "hub3:1884"], tls=True)

    assert [str(address) for address in mqtt.brokers] == ["localhost:1", "hub2:8883", "hub3:1884"]


def test_an_ipv6_address_stands_in_brackets() -> None:
    mqtt = settings(host="::1", fallbacks=["[fd00::1]", "[fd00::2]:1884"])

    assert [(each.host, each.port) for each in mqtt.brokers[1:]] == [
        ("fd00::1", 1883),
        ("fd00::2", 1884),
    ]
    assert str(mqtt.brokers[0]) == "[::1]:1883"


@pytest.mark.parametrize("fallback", ["", "::1", "hub:", "hub:0", "hub:65536", "hub:x", "[::1"])
def test_what_is_no_address_is_refused(fallback: str) -> None:
    assert refusal(fallbacks=[fallback]).startswith("fallbacks.0: ")


@pytest.mark.parametrize("pool", ["", "a/b", "+", "x" * 65])
def test_a_pool_has_a_name(pool: str) -> None:
    assert refusal(pools=[pool]).startswith("pools.0: ")


def test_what_only_follows_from_a_mistake_is_not_counted_as_another() -> None:
    assert refusal(host="") == "host: String should have at least 1 character"
