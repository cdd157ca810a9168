"""The rules of who may do what; tests/system/test_access.py holds them against a real broker."""

import pytest

from edged.errors import ConfigError
from edged.settings import MqttSettings
from edged.transports.access import Right, client_rights, node_rights, users
from edged.transports.topics import Topics

ROOT = "edged/v1"


def topics(rights: tuple[Right, ...], *acts: str) -> set[str]:
    return {right.topic for right in rights if right.act in acts}


def test_a_client_writes_below_its_own_level_only() -> None:
    assert topics(client_rights(ROOT, "kitchen"), "write") == {
        "edged/v1/+/prompt/kitchen",
        "edged/v1/pool/+/prompt/kitchen",
        "edged/v1/+/cancel/kitchen",
    }


def test_a_client_reads_its_answers_and_what_nodes_say_of_themselves() -> None:
    assert topics(client_rights(ROOT, "kitchen"), "read", "listen") == {
        "edged/v1/+/completion/kitchen/#",
        "edged/v1/+/status",
        "edged/v1/+/card",
        "edged/v1/+/state",
    }


def test_a_node_may_subscribe_to_all_that_it_listens_to() -> None:
    listened = set(Topics(ROOT, "attic").subscriptions(require_client=False))

    assert listened == topics(node_rights(ROOT, "attic"), "listen")


def test_a_node_says_of_itself_what_it_says_below_its_own_level_only() -> None:
    written = topics(node_rights(ROOT, "attic", ("fleet",)), "write")

    assert {topic for topic in written if not topic.startswith("edged/v1/attic/")} == {
        "edged/v1/+/completion/#"
    }


def test_a_node_may_write_wherever_a_prompt_may_direct_replies_by_default() -> None:
    """Else one such prompt would cut it off: Mosquitto ends the connection of who may not."""
    (prefix,) = MqttSettings().reply_prefixes
    allowed = prefix.replace("{root}", ROOT).replace("{client}/", "#")

    assert allowed in topics(node_rights(ROOT, "attic"), "write")


def test_rejections_are_read_by_their_own_node_only() -> None:
    assert "edged/v1/attic/rejected" in topics(node_rights(ROOT, "attic"), "read")
    assert not [right for right in client_rights(ROOT, "hub") if "rejected" in right.topic]


def test_a_shared_subscription_is_received_under_the_topics_own_name() -> None:
    (share, _) = [
        right for right in node_rights(ROOT, "attic", ("fleet",)) if right.topic.startswith("$")
    ]

    assert share.topic == "$share/edged-fleet/edged/v1/pool/fleet/prompt"
    assert share.received == "edged/v1/pool/fleet/prompt"


def test_only_the_nodes_of_a_pool_share_its_prompts() -> None:
    attic, cellar = users(ROOT, ("attic", "cellar"), (), {"fleet": {"cellar"}})

    assert not [right for right in attic.rights if "pool" in right.topic]
    assert [right for right in cellar.rights if right.topic.startswith("$share/edged-fleet/")]


def test_who_is_node_and_client_has_the_rights_of_both() -> None:
    (attic,) = users(ROOT, ("attic",), ("attic",), {})

    assert set(attic.rights) == {*node_rights(ROOT, "attic"), *client_rights(ROOT, "attic")}


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "a b", "a:b", "x" * 65, "é"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        users(ROOT, ("attic",), (name,), {})


def test_pool_is_no_nodes_name() -> None:
    with pytest.raises(ConfigError, match="pool cannot be a node's name"):
        users(ROOT, ("pool",), (), {})


def test_a_pool_with_nodes_that_nobody_named_is_refused() -> None:
    with pytest.raises(ConfigError, match="the pool fleet has nodes that are not named: cellar"):
        users(ROOT, ("attic",), (), {"fleet": {"attic", "cellar"}})
