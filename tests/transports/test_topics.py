"""Topic names, and the rule of where a prompt may direct its replies."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.settings import MqttSettings
from edged.transports.topics import (
    MAX_REPLY_TOPIC_BYTES,
    MAX_REPLY_TOPIC_LEVELS,
    Topics,
    is_clean,
    is_level,
    is_name,
    may_reply,
)

TOPICS = Topics("edged/v1", "attic")
DEFAULT_PREFIXES = MqttSettings().reply_prefixes


def allowed(topic: str, *prefixes: str, root: str = "edged/v1", client: str = "kitchen") -> bool:
    return may_reply(topic, prefixes=prefixes or DEFAULT_PREFIXES, root=root, client=client)


# Names


def test_the_topics_are_those_of_the_wire_protocol() -> None:
    assert [TOPICS.status, TOPICS.card, TOPICS.state, TOPICS.rejected] == [
        "edged/v1/attic/status",
        "edged/v1/attic/card",
        "edged/v1/attic/state",
        "edged/v1/attic/rejected",
    ]


def test_a_clients_topics_end_in_its_name() -> None:
    assert [TOPICS.prompt("kitchen"), TOPICS.cancel("kitchen")] == [
        "edged/v1/attic/prompt/kitchen",
        "edged/v1/attic/cancel/kitchen",
    ]


def test_the_anonymous_clients_topics_are_short() -> None:
    assert [TOPICS.prompt(), TOPICS.cancel()] == ["edged/v1/attic/prompt", "edged/v1/attic/cancel"]


def test_a_completion_lies_below_its_client() -> None:
    assert TOPICS.completion("kitchen", "7") == "edged/v1/attic/completion/kitchen/7"


def test_a_node_listens_to_prompts_and_cancels_with_and_without_a_client() -> None:
    assert sorted(TOPICS.subscriptions(require_client=False)) == [
        "edged/v1/attic/cancel",
        "edged/v1/attic/cancel/+",
        "edged/v1/attic/prompt",
        "edged/v1/attic/prompt/+",
    ]


def test_a_node_that_requires_a_client_does_not_listen_to_the_short_topics() -> None:
    assert sorted(TOPICS.subscriptions(require_client=True)) == [
        "edged/v1/attic/cancel/+",
        "edged/v1/attic/prompt/+",
    ]


@pytest.mark.parametrize("kind", ["prompt", "cancel"])
@pytest.mark.parametrize("client", [None, "kitchen"])
def test_its_own_topics_are_recognised(kind: str, client: str | None) -> None:
    topic = TOPICS.prompt(client) if kind == "prompt" else TOPICS.cancel(client)

    assert TOPICS.parse(topic) == (kind, client)


@pytest.mark.parametrize(
    "topic",
    [
        "edged/v1/attic/prompt/a/b",
        "edged/v1/attic/status",
        "edged/v1/attic",
        "edged/v1/cellar/prompt",
        "edged/v2/attic/prompt",
        "prompt",
        "prompt/kitchen",
        "",
    ],
)
def test_other_topics_are_not_taken_for_its_own(topic: str) -> None:
    assert TOPICS.parse(topic) is None


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "x" * 64])
def test_names_are_letters_digits_and_three_marks(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "+", "#", "é", "a\n", "$a"])
def test_other_texts_are_no_names(name: str) -> None:
    assert not is_name(name)


# What MQTT takes as a string


@pytest.mark.parametrize("text", ["", "plain", "é😀漢", "a b", "\ufeff", "\ue000"])
def test_printable_text_is_clean(text: str) -> None:
    assert is_clean(text)


@pytest.mark.parametrize(
    "code_point",
    [0, 0xA, 0x1F, 0x7F, 0x9F, 0xD800, 0xDFFF, 0xFDD0, 0xFFFF, 0x1FFFE],
    ids=hex,
)
def test_characters_for_which_brokers_disconnect_are_not_clean(code_point: int) -> None:
    assert not is_clean(f"a{chr(code_point)}b")


@pytest.mark.parametrize("text", ["", "a/b", "+", "#", "a+", "a\0"])
def test_what_cannot_be_one_level_is_none(text: str) -> None:
    assert not is_level(text)


# Where replies may go


@pytest.mark.parametrize(
    "topic",
    [
        "edged/v1/attic/completion/kitchen/7",
        "edged/v1/cellar/completion/kitchen/7",
        "edged/v1/attic/completion/kitchen/a/b/c",
    ],
)
def test_by_default_replies_may_go_below_the_clients_own_completion_topic(topic: str) -> None:
    assert allowed(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "edged/v1/attic/completion/bedroom/7",
        "edged/v1/attic/completion/kitchen",
        "edged/v1/attic/completion/kitchen/",
        "edged/v1/attic/completion/kitchen2/7",
        "edged/v1/attic/prompt/kitchen",
        "edged/v1/attic/status",
        "edged/v1/a/b/completion/kitchen/7",
        "/edged/v1/attic/completion/kitchen/7",
        "home/light/set",
        "",
        "/",
    ],
)
def test_by_default_replies_may_go_nowhere_else(topic: str) -> None:
    assert not allowed(topic)


def test_the_anonymous_client_may_direct_replies_below_its_own_name() -> None:
    assert allowed("edged/v1/attic/completion/anonymous/7", client="anonymous")


@pytest.mark.parametrize(
    "topic",
    [
        "edged/v1/+/completion/kitchen/7",
        "edged/v1/attic/completion/kitchen/#",
        "edged/v1/attic/completion/kitchen/a+b",
        "edged/v1/attic/completion/kitchen//x",
        "edged/v1/attic/completion/kitchen/a\0",
        "edged/v1/attic/completion/kitchen/a\n",
        "edged/v1/attic/completion/kitchen/\ud800",
        "edged/v1/attic/completion/kitchen/\ufffe",
    ],
    ids=ascii,
)
def test_a_topic_that_a_broker_would_not_take_is_never_allowed(topic: str) -> None:
    assert not allowed(topic)


def test_a_topic_of_the_brokers_own_is_never_allowed() -> None:
    assert not allowed("$SYS/kitchen/7", "$SYS/", "+/")


def test_a_prefix_of_the_operators_allows_what_lies_below_it() -> None:
    assert allowed("home/kitchen/answers/1", "assistants/", "home/{client}/answers/")


def test_a_prefix_means_the_same_without_its_slash_at_the_end() -> None:
    assert [allowed(topic, "home") for topic in ("home/x", "home", "homes/x")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("prefix", ["", "/", "#", "home/#"])
def test_a_prefix_of_no_sense_allows_nothing(prefix: str) -> None:
    assert not allowed("home/x", prefix)


@pytest.mark.parametrize(("length", "may"), [(MAX_REPLY_TOPIC_BYTES, True), (513, False)])
def test_a_topic_has_a_longest_length(length: int, may: bool) -> None:
    assert allowed("home/".ljust(length, "x"), "home/") is may


def test_the_length_counts_in_bytes() -> None:
    assert not allowed("home/" + "é" * 254, "home/")


@pytest.mark.parametrize(("levels", "may"), [(MAX_REPLY_TOPIC_LEVELS, True), (33, False)])
def test_a_topic_has_a_largest_depth(levels: int, may: bool) -> None:
    assert allowed("/".join(["home", *"x" * (levels - 1)]), "home/") is may


LEVELS = st.one_of(
    st.sampled_from(
        ["edged", "v1", "edged/v1", "attic", "completion", "kitchen", "bedroom", "7", "", "+", "#"]
    ),
    st.sampled_from(["$SYS", "$share", "a\0", "\n", "\ud800", "\uffff", "\x85", "é", "a+b", "x#"]),
    st.text(max_size=3),
)


@given(
    st.one_of(
        st.lists(LEVELS, max_size=8).map("/".join),
        st.lists(LEVELS, max_size=3).map(
            lambda below: "/".join(["edged/v1/attic/completion/kitchen", *below])
        ),
    ),
    st.sampled_from([DEFAULT_PREFIXES, ("+/",), ("$SYS/", "home/"), ("+/+/", "+"), ()]),
)
@settings(max_examples=200)
def test_no_topic_is_allowed_that_lies_outside_the_prefixes_or_harms_a_broker(
    topic: str, prefixes: tuple[str, ...]
) -> None:
    if not may_reply(topic, prefixes=prefixes, root="edged/v1", client="kitchen"):
        return
    patterns = [
        prefix.replace("{root}", "edged/v1").replace("{client}", "kitchen").replace("+", "[^/]+")
        for prefix in prefixes
    ]
    assert any(re.match(pattern.rstrip("/") + "/.", topic) for pattern in patterns)
    assert topic[0] != "$"
    assert set("+#").isdisjoint(topic)
    assert "" not in topic.split("/")
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in topic)


@given(st.lists(st.text("abé-_. 7", min_size=1, max_size=5), min_size=1, max_size=4))
@settings(max_examples=50)
def test_every_harmless_topic_below_the_clients_own_is_allowed(below: list[str]) -> None:
    assert allowed("/".join(["edged/v1/attic/completion/kitchen", *below]))


# Pools

POOLED = Topics("edged/v1", "attic", ("house", "garden"))


def test_a_pools_prompts_are_shared_by_a_group_of_its_own() -> None:
    assert POOLED.shares(require_client=False) == [
        "$share/edged-house/edged/v1/pool/house/prompt",
        "$share/edged-house/edged/v1/pool/house/prompt/+",
        "$share/edged-garden/edged/v1/pool/garden/prompt",
        "$share/edged-garden/edged/v1/pool/garden/prompt/+",
    ]


def test_a_pool_can_be_closed_to_anonymous_clients() -> None:
    assert Topics("edged/v1", "attic", ("house",)).shares(require_client=True) == [
        "$share/edged-house/edged/v1/pool/house/prompt/+"
    ]


def test_a_prompt_of_a_pool_is_told_with_its_client() -> None:
    assert POOLED.parse("edged/v1/pool/house/prompt/kitchen") == ("prompt", "kitchen")
    assert POOLED.parse("edged/v1/pool/garden/prompt") == ("prompt", None)


@pytest.mark.parametrize(
    "topic",
    [
        "edged/v1/pool/cellar/prompt",
        "edged/v1/pool/house/cancel",
        "edged/v1/pool/house/prompt/a/b",
        "edged/v1/pool/prompt",
        "edged/v1/house/prompt",
    ],
)
def test_what_is_of_no_pool_of_ours_is_told_as_that(topic: str) -> None:
    assert POOLED.parse(topic) is None
