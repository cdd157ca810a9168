"""Mosquitto's files; that the broker reads them so is in tests/system/test_access.py."""

import base64
import json

import pytest

from edged.transports.access import Right, User
from edged.transports.mosquitto import (
    Hashed,
    acl_file,
    broker_configuration,
    dynsec,
    hashed,
    hashes_in_dynsec,
    hashes_in_password_file,
    new_password,
    password_file,
)

KITCHEN = User(
    "kitchen", (Right("write", "e/+/prompt/kitchen"), Right("read", "e/+/completion/kitchen/#"))
)
ATTIC = User("attic", (Right("listen", "$share/edged-fleet/e/pool/fleet/prompt/+"),))

# As `mosquitto_passwd` 2.0.11 wrote it, of the password "p".
LINE = (
    "u:$7$101$YY5dfGoBUx0v03sv$PrJ1/8evPcb+3xV5wCe6dnLtEFqP79eqxRKr1SzGcVtixbJ5yWwTfOvy6IyTgQbsTifz"
    "uQmsTtEHk1qI0JQBLg=="
)
# As `mosquitto_ctrl dynsec init` 2.0.11 wrote it, of the password "secretpw".
SALT = "urn4lgEIvfVsM8QJ"
DIGEST = "FTdK1WYwTMZ9jAFZoWnkyg8DYrx3S6ucc4jNdIza6JfkiP846oXF/MvEp0+j4bY7gpJdaeKPcVRi0xsVrzyplw=="


def test_a_password_is_hashed_as_the_brokers_own_tools_do_it() -> None:
    assert base64.b64encode(Hashed.of("secretpw", base64.b64decode(SALT)).digest).decode() == DIGEST


def test_a_line_of_the_brokers_own_tool_is_read() -> None:
    assert hashes_in_password_file(LINE + "\n")["u"].is_of("p")


def test_a_password_file_is_written_as_it_is_read() -> None:
    assert password_file(hashes_in_password_file(LINE)) == LINE + "\n"


def test_a_hash_is_of_its_own_password_only() -> None:
    assert not hashes_in_password_file(LINE)["u"].is_of("P")


def test_a_password_is_salted_anew_for_every_user() -> None:
    both = hashed({"a": "same", "b": "same"}, {})

    assert both["a"].digest != both["b"].digest


def test_what_was_hashed_before_stays_while_the_password_does() -> None:
    before = {"a": Hashed.of("old"), "b": Hashed.of("old")}
    after = hashed({"a": "old", "b": "new"}, before)

    assert after["a"] == before["a"]
    assert after["b"].is_of("new")


def test_passwords_are_long_and_never_the_same() -> None:
    assert len({new_password() for _ in range(100)}) == 100
    assert len(new_password()) == 32  # of 64 characters each: 192 bits


@pytest.mark.parametrize("text", ["", "{", "[]", '{"clients": [{}]}', '{"clients": 1}', "[" * 5000])
def test_a_configuration_that_cannot_be_read_holds_no_hashes(text: str) -> None:
    assert hashes_in_dynsec(text) == {}


@pytest.mark.parametrize(
    "text", ["", "u", "u:", "u:p", "u:$6$a$b", "u:$7$x$YQ==$YQ==", "u:$7$1$a$b"]
)
def test_a_line_of_another_kind_holds_no_hash(text: str) -> None:
    assert hashes_in_password_file(text) == {}


def test_the_plugin_allows_nothing_by_itself() -> None:
    configuration = json.loads(dynsec([KITCHEN], hashed({"kitchen": "k"}, {})))
    allowed = configuration["defaultACLAccess"]

    assert [
        allowed[kind] for kind in ("publishClientSend", "publishClientReceive", "subscribe")
    ] == [
        False,
        False,
        False,
    ]


def test_the_plugins_configuration_is_read_as_it_is_written() -> None:
    kept = hashed({"kitchen": "k", "attic": "a"}, {})

    assert hashes_in_dynsec(dynsec([KITCHEN, ATTIC], kept)) == kept


def test_nobody_may_administer_the_plugin() -> None:
    assert "$CONTROL" not in dynsec([KITCHEN, ATTIC], hashed({"kitchen": "k", "attic": "a"}, {}))


def test_a_shared_subscription_is_allowed_to_the_letter() -> None:
    configuration = json.loads(dynsec([ATTIC], hashed({"attic": "a"}, {})))
    rules = [(acl["acltype"], acl["topic"]) for acl in configuration["roles"][0]["acls"]]

    assert rules == [
        ("subscribeLiteral", "$share/edged-fleet/e/pool/fleet/prompt/+"),
        ("publishClientReceive", "e/pool/fleet/prompt/+"),
    ]


def test_an_acl_file_says_who_writes_and_who_reads() -> None:
    assert acl_file([KITCHEN]).splitlines()[1:] == [
        "",
        "user kitchen",
        "topic write e/+/prompt/kitchen",
        "topic read e/+/completion/kitchen/#",
    ]


@pytest.mark.parametrize("kind", ["dynsec", "aclfile"])
def test_the_brokers_configuration_lets_nobody_in_without_an_account(kind: str) -> None:
    lines = broker_configuration(kind, "/plugin.so").splitlines()  # type: ignore[arg-type]

    assert "allow_anonymous false" in lines
    assert lines.index("per_listener_settings true") < lines.index("listener 8883")
