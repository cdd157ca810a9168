"""Whatever a client publishes, with whatever properties: it is answered where it may be.

A real Mosquitto and a real daemon, and somebody who hears everything on the bus.
"""

import asyncio
import contextlib
import json
import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import raw_client
import scripted_broker
from bus_client import PATIENCE_S, BusClient, Got
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node import Broker, Node, running
from raw_client import Message, framed, text, variable

from edged.hardware.memory import status_bytes

OWN = re.compile(r"edged/v1/fuzzed/(status|state|card|rejected)")
COMPLETION = re.compile(r"edged/v1/[^/]+/completion/([^/]+)/.+")
NOBODY = "nobody"
"""Whose topics must stay silent: this client never asks anything."""
GROWTH_BYTES = 32 * 2**20
"""Room for what one of the larger payloads takes; what is kept of each would be far more."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    # Its own: what is published here with retain would be found by others.
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def fuzzed(
    broker: Broker, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Node]:
    settings = {"engine__name": "echo", "mqtt__protocol": request.param, "mqtt__pools": '["den"]'}
    with running("fuzzed", broker.port, tmp_path_factory.mktemp("node"), **settings) as node:
        yield node


class Ear:
    """Hears everything, and knows who has asked so far."""

    def __init__(self, bus: BusClient) -> None:
        self._bus = bus
        self._published: set[str] = set()
        self._askers = {"anonymous"}

    def publishes(self, topic: str, client: str) -> None:
        """Somebody is about to."""
        self._published.add(topic)
        self._askers.add(client)

    def until_alive(self) -> list[Got]:
        """What is heard until the node has answered one more prompt; none of it out of place."""
        marker = uuid.uuid4().hex
        topic = "edged/v1/fuzzed/prompt/marker"
        self.publishes(topic, "marker")
        self._bus.publish(topic, {"id": marker, "prompt": "alive", "priority": 9})
        heard: list[Got] = []
        while True:
            got = self._bus.next(PATIENCE_S)
            self._check(got)
            if got.topic == f"edged/v1/fuzzed/completion/marker/{marker}":
                if got.json["type"] == "done":
                    return heard
            elif got.topic not in self._published:
                heard.append(got)

    def _check(self, got: Got) -> None:
        found = COMPLETION.fullmatch(got.topic)
        assert (
            got.topic in self._published
            or OWN.fullmatch(got.topic)
            or (found and found[1] in self._askers)
        ), got


@pytest.fixture(scope="module")
def ear(broker: Broker, fuzzed: Node) -> Iterator[Ear]:
    # In MQTT 3.1.1: there are properties that the client library cannot read.
    with BusClient(broker.port, v5=False) as bus:
        bus.subscribe("#")
        yield Ear(bus)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_schemas = st.dictionaries(
    st.sampled_from(["type", "properties", "items", "enum", "anyOf", "$ref", "minItems", "x"]),
    _json | st.sampled_from(["object", "#", ["a"], {"a": True}, [{"$ref": "#"}]]),
    max_size=3,
)
_formats = st.fixed_dictionaries(
    {"type": st.sampled_from(["json_object", "json_schema"]), "schema": _schemas}
)
_fields = st.sampled_from(
    ["id", "prompt", "messages", "max_tokens", "temperature", "top_k", "top_p", "seed", "stop",
     "priority", "deadline_s", "stream", "chunk", "model", "reply_to", "correlation", "session",
     "session_reset", "response_format", "x"]
)  # fmt: skip
_reply_topics = st.one_of(
    st.sampled_from(
        [
            "edged/v1/x/completion/{client}/y",
            "edged/v1/x/completion/{client}/y/" + "z" * 500,
            "edged/v1/x/completion/{client}" + "/z" * 190,
            "edged/v1/x/completion/{client}/\u007f",
            "edged/v1/x/completion/{client}/\U0001f321",
            f"edged/v1/x/completion/{NOBODY}/y",
            "edged/v1/x/completion/{client}/../../" + NOBODY,
            "edged/v1/+/completion/{client}/y",
            "edged/v1/x/completion/{client}/#",
            "edged/v1/fuzzed/status",
            "edged/v1/fuzzed/prompt/" + NOBODY,
            "edged/v1/pool/den/prompt/" + NOBODY,
            "$SYS/a",
            "$share/edged-den/edged/v1/x/completion/{client}/y",
            "/edged/v1/x/completion/{client}/y",
            "a",
            "",
        ]
    ),
    st.text(max_size=30),
    st.integers(513, 65_000).map(lambda length: "edged/v1/x/completion/{client}/" + "y" * length),
)
_payloads = st.one_of(
    st.sampled_from([b"hi", b'{"prompt": "hi"}', b'{"id": "a", "prompt": "hi"}', b""]),
    st.binary(max_size=200),
    st.binary(max_size=50).map(lambda tail: b'{"prompt": "' + tail),
    st.dictionaries(_fields, _json, max_size=4).map(lambda body: json.dumps(body).encode()),
    st.dictionaries(st.text(max_size=20), _json, max_size=3).map(lambda b: json.dumps(b).encode()),
    _formats.map(lambda form: json.dumps({"prompt": "x", "response_format": form}).encode()),
    _reply_topics.map(lambda topic: json.dumps({"prompt": "x", "reply_to": topic}).encode()),
    st.integers(1, 200_000).map(lambda depth: b'{"prompt":' + b"[" * depth),
    st.integers(1, 6000).map(lambda digits: b'{"prompt": "x", "seed": ' + b"9" * digits + b"}"),
    st.integers(1, 50_000).map(lambda many: json.dumps({"messages": [0] * many}).encode()),
    st.sampled_from([b"{", b"{}", b" \n\t", b"\xff\xfe", b'{"prompt": "\\ud800"}',
                     b'{"id": "\\u0001", "prompt": "x"}', b'{"id": "a/b", "prompt": "x"}',
                     b'{"prompt": "x", "temperature": NaN}', b'{"prompt": "x", "top_p": 1e999}']),
)  # fmt: skip


def _utf8(string: str) -> bytes:
    return text(string.encode("utf-8", "replace"))


_any_text = st.text(max_size=20).map(_utf8)
_properties = st.lists(
    st.one_of(
        st.tuples(st.just(b"\x01"), st.sampled_from([b"\x00", b"\x01", b"\x02"])),
        st.tuples(
            st.just(b"\x02"),
            st.sampled_from([0, 1, 60, 2**31, 2**32 - 1]).map(lambda n: struct.pack(">I", n)),
        ),
        st.tuples(st.just(b"\x03"), _any_text),
        st.tuples(st.just(b"\x08"), _reply_topics.map(_utf8)),
        st.tuples(
            st.just(b"\x09"),
            st.one_of(
                st.binary(max_size=40), st.integers(1000, 65_535).map(lambda length: b"c" * length)
            ).map(text),
        ),
        st.tuples(st.just(b"\x0b"), st.integers(0, 300).map(variable)),
        st.tuples(st.just(b"\x23"), st.integers(0, 12).map(lambda n: struct.pack(">H", n))),
        st.tuples(st.just(b"\x26"), _any_text, _any_text),
    ).map(b"".join),
    max_size=4,
).map(tuple)
_topics = st.sampled_from(
    ["fuzzed/prompt", "fuzzed/cancel", "fuzzed/prompt/{client}", "fuzzed/cancel/{client}",
     "fuzzed/prompt/a b", "fuzzed/prompt/\u00e9", "fuzzed/prompt/", "fuzzed/prompt/{client}/x",
     "pool/den/prompt", "pool/den/prompt/{client}", "pool/other/prompt/{client}"]
)  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """What is published; ``{client}`` in its topics becomes one that has not asked before."""

    message: Message
    v5: bool


_draws = st.builds(
    Draw,
    st.builds(
        Message,
        _topics.map(lambda topic: f"edged/v1/{topic}".encode()),
        _payloads,
        st.integers(0, 2),
        st.booleans(),
        _properties,
    ),
    st.sampled_from([True, True, False]),
)


def _of(client: str, message: Message) -> Message:
    """The same, asked by this client; a property's length changes with it."""
    name = client.encode()
    return replace(
        message,
        topic=message.topic.replace(b"{client}", name),
        payload=message.payload.replace(b"{client}", name),
        properties=tuple(_filled_in(each, name) for each in message.properties),
    )


def _filled_in(raw: bytes, name: bytes) -> bytes:
    if raw[:1] != b"\x08":
        return raw
    return b"\x08" + text(raw[3:].replace(b"{client}", name))


@pytest.mark.parametrize(
    "examples", [150, pytest.param(20_000, marks=pytest.mark.campaign)], ids=["some", "many"]
)
def test_whatever_is_published_is_answered_where_it_may_be(
    fuzzed: Node, ear: Ear, broker: Broker, examples: int
) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[*HealthCheck])
    @given(draw=_draws)
    def check(draw: Draw) -> None:
        client = f"c{uuid.uuid4().hex[:8]}"
        message = _of(client, draw.message)
        topic = message.topic.decode()
        ear.publishes(topic, client)
        taken = raw_client.send(broker.port, message, v5=draw.v5)
        heard = ear.until_alive()
        if taken and message.retain and message.payload:
            raw_client.send(broker.port, replace(message, payload=b"", properties=()), v5=draw.v5)
        is_ours = re.fullmatch(r"edged/v1/(fuzzed/(prompt|cancel)|pool/den/prompt)(/[^/]*)?", topic)
        if taken and is_ours and not _may_go_unheard(message):
            assert [got for got in heard if not got.topic.endswith(("/state", "/card"))]

    before = status_bytes(fuzzed.process.pid, "VmRSS")
    check()
    assert fuzzed.process.poll() is None
    assert status_bytes(fuzzed.process.pid, "VmRSS") - before < GROWTH_BYTES
    # What cannot be read is not acknowledged, and would come back as long as the session lives.
    assert "cannot be read" not in fuzzed.log
    assert "Traceback" not in fuzzed.log


def _may_go_unheard(message: Message) -> bool:
    """Whether the broker drops it by right: it has expired, or is longer than we take."""
    return b"\x02\x00\x00\x00" in b"".join(message.properties)


def test_a_property_that_the_broker_should_have_refused_harms_nobody(
    fuzzed: Node, ear: Ear, broker: Broker
) -> None:
    # Mosquitto 2.0.11 hands it on, and would do so again after each connection that it ended.
    topic = "edged/v1/fuzzed/prompt"
    ear.publishes(topic, "anonymous")
    message = Message(topic.encode(), b"hi", qos=1, properties=(b"\x01\x02",))
    if raw_client.send(broker.port, message, v5=True):
        ear.until_alive()
    assert "the connection ended" not in fuzzed.log


# A broker that means harm


def _framed_publish(first: int, number: bytes, payload: bytes, length: int | None = None) -> bytes:
    body = text(b"edged/v1/harmed/prompt/me") + number + b"\x00" + payload
    return framed(first, body, length)


async def test_a_daemon_whose_broker_meant_harm_serves_the_next_one(tmp_path: Path) -> None:
    evil = [
        framed(0xF0, b"\x00" * 100),
        b"".join(
            _framed_publish(0x34, struct.pack(">H", n), bytes(100_000)) for n in range(1, 500)
        ),
        b"".join(_framed_publish(0x32, struct.pack(">H", n), b"{") for n in range(1, 20_000)),
        _framed_publish(0x30, b"", bytes(64 * 2**20), 2**28 - 1),
    ]
    replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(scripted_broker.ACCEPTED_V5 if level == 5 else scripted_broker.ACCEPTED)
        if evil:
            writer.write(evil.pop(0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await writer.drain()
                    while await reader.read(65_536):
                        pass
            return
        writer.write(_framed_publish(0x32, b"\x00\x07", b'{"id": "a", "prompt": "hello"}'))
        while True:
            first, body = await scripted_broker.packet_of(reader, scripted_broker.PUBLISH)
            if first & 0x06:
                writer.write(scripted_broker.puback(body))
            if b"/completion/me/a" in body[:60] and b'"type": "done"' in body:
                replies.put_nowait(json.loads(body[body.index(b"{") :]))

    async with scripted_broker.broker(answer) as mqtt:
        node = Node("harmed", mqtt.port, tmp_path, engine__name="echo", mqtt__protocol="5")
        try:
            done = await asyncio.wait_for(replies.get(), 2 * PATIENCE_S)
            assert done["text"] == "hello"
            assert status_bytes(node.process.pid, "VmHWM") < 128 * 2**20
            assert "Traceback" not in node.log
        finally:
            await asyncio.to_thread(node.stop)
