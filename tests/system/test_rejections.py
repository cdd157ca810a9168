"""Whatever arrives, the daemon lives and says what was wrong."""

from pathlib import Path
from typing import Any

import pytest
from bus_client import BusClient
from node import Broker, Node, running


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"promt": "typo"}, "promt"),
        ({"prompt": "x", "session": ""}, "session"),
        ({"prompt": "x", "response_format": {"type": "json_object"}}, "response_format"),
        ({"prompt": "x", "messages": []}, "messages"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "max_tokens": "5"}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 1_000_000}, "max_tokens"),
        ({"prompt": "x", "temperature": 1e308}, "temperature"),
        ({"prompt": "x", "priority": 10}, "priority"),
        ({"prompt": "x", "stop": [""]}, "stop"),
        ({"prompt": "x", "chunk": "word"}, "chunk"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ],
)
def test_an_invalid_field_is_named(
    echo: Node, client: BusClient, body: dict[str, Any], field: str
) -> None:
    failed = client.ask("echo", **body)[-1]
    assert (failed["type"], failed["code"]) == ("failed", "invalid_request")
    assert failed["details"]["field"] == field
    assert field in failed["error"]


def test_a_prompt_cannot_direct_replies_where_its_author_may_not_publish(
    echo: Node, client: BusClient
) -> None:
    for topic in ("edged/v1/echo/status", "edged/v1/echo/completion/other/x", "$SYS/x", "a/#"):
        client.subscribe("edged/v1/echo/rejected")
        body = {"prompt": "x", "reply_to": topic}
        failed = client.ask("echo", "me", **body)[-1]
        assert failed["code"] == "reply_topic_forbidden"
    client.subscribe("edged/v1/echo/status")
    assert client.wait_for(lambda got: got.topic.endswith("/status")).payload == b"online"


def test_a_retained_prompt_is_ignored_and_reported(
    broker: Broker, client: BusClient, tmp_path: Path
) -> None:
    client.subscribe("edged/v1/late/rejected")
    client.subscribe("edged/v1/late/completion/#")
    client.publish("edged/v1/late/prompt", "from long ago", retain=True)
    try:
        with running("late", broker.port, tmp_path, engine__name="echo"):
            got = client.next()
            assert got.topic == "edged/v1/late/rejected"
            assert "retain" in got.json["reason"]
            assert "long ago" not in got.payload.decode()
            client.nothing_more()
    finally:
        client.publish("edged/v1/late/prompt", b"", retain=True)


def test_without_anonymous_clients_the_short_topic_is_dead(
    broker: Broker, client: BusClient, tmp_path: Path
) -> None:
    settings = {"engine__name": "echo", "mqtt__require_client": "true"}
    with running("strict", broker.port, tmp_path, **settings):
        client.subscribe("edged/v1/strict/#")
        client.publish("edged/v1/strict/prompt", "anyone?")
        client.publish("edged/v1/strict/prompt/me", "me?")
        done = client.wait_for(lambda got: got.properties.get("edged-type") == "done")
        assert done.topic.startswith("edged/v1/strict/completion/me/")
        assert done.json["text"] == "me?"


def test_anonymous_clients_stay_out_though_the_brokers_session_knows_them(
    broker: Broker, client: BusClient, tmp_path: Path
) -> None:
    with running("stricter", broker.port, tmp_path, engine__name="echo"):
        assert client.ask("stricter", prompt="hi")[-1]["type"] == "done"
    client.subscribe("edged/v1/stricter/rejected")
    settings = {"engine__name": "echo", "mqtt__require_client": "true"}
    with running("stricter", broker.port, tmp_path, **settings):
        client.publish("edged/v1/stricter/prompt", "hi again")
        got = client.wait_for(lambda got: "/rejected" in got.topic or "/completion/" in got.topic)
        assert "client level is required" in got.json["reason"]


def test_a_byte_order_mark_in_a_property_harms_nobody(echo: Node, client: BusClient) -> None:
    client.publish("edged/v1/echo/prompt", "hi", user_properties=[("a", "\ufeffx")])
    assert client.ask("echo", prompt="and the next one")[-1]["text"] == "and the next one"
    assert "cannot be read" not in echo.log


def test_an_oversized_payload_is_answered(echo: Node, client: BusClient) -> None:
    failed = client.ask("echo", prompt="x" * 300_000)[-1]
    assert failed["code"] == "invalid_request"
    assert failed["details"]["limit"] == 262_144


def test_an_answer_larger_than_the_broker_takes_cuts_nobody_off(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "max_packet_size 1400\n")
    broker.start()
    try:
        with (
            running("tight", broker.port, tmp_path, engine__name="echo") as node,
            BusClient(broker.port) as client,
        ):
            client.subscribe("edged/v1/tight/rejected")
            client.send_prompt("tight", prompt="x" * 1250, max_tokens=2000, stream=False)
            told = client.wait_for(lambda got: got.topic.endswith("/rejected")).json
            assert client.ask("tight", prompt="hello")[-1]["text"] == "hello"
            assert node.log.count("connected to") == 1
    finally:
        broker.stop()
    assert "in packets of up to 1400" in told["reason"]
