"""The transport against a broker that means harm: it comes back, and holds nothing on to it."""

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_client import framed, text
from scripted_broker import (
    ACCEPTED,
    ACCEPTED_V5,
    Listener,
    broker,
    connected,
    packet_of,
    publish,
    soon,
)

from edged.messages import Origin, Prompt
from edged.settings import MqttSettings, Settings
from edged.transports import connection
from edged.transports.decode import PARSED_FACTOR, Incoming
from edged.transports.mqtt import MqttTransport

MIB = 2**20
SETTLE_S = 0.02
"""What is wrong with a packet is noticed within it; else the broker is the one who hangs up."""


class Taker:
    """Takes prompts and forgets them, as its spool would have them."""

    def submit(self, prompt: Prompt, origin: Origin) -> None:
        origin.acknowledge()

    def cancel(self, client: str, prompt_id: str) -> bool:
        return True


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back without a pause, which would grow with each connection that was no good."""
    monkeypatch.setattr(connection, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(connection, "BACKOFF_MAX_S", 0.001)


# Packets that are almost right


_short = st.binary(max_size=24)
_level = st.sampled_from([b"prompt", b"cancel", b"prompt/me", b"prompt/\xff", b"cancel/+", b""])
_topics = st.one_of(_level.map(lambda level: b"edged/v1/n/" + level), _short)
_property = st.one_of(
    st.tuples(st.just(b"\x01"), _short.map(lambda raw: raw[:1])),
    st.tuples(st.just(b"\x02"), st.binary(min_size=4, max_size=4)),
    st.tuples(st.sampled_from([b"\x03", b"\x08", b"\x09"]), (_topics | _short).map(text)),
    st.tuples(st.just(b"\x23"), st.binary(min_size=2, max_size=2)),
    st.tuples(st.just(b"\x26"), _short.map(text), _short.map(text)),
    st.tuples(_short.map(lambda raw: raw[:1]), _short),
).map(b"".join)  # fmt: skip
_properties = st.lists(_property, max_size=3).map(b"".join).map(lambda raw: bytes([len(raw)]) + raw)
_publishes = st.builds(
    lambda flags, topic, number, properties, payload: framed(
        0x30 | flags, text(topic) + (number if flags & 6 else b"") + properties + payload
    ),
    st.integers(0, 15),
    _topics,
    st.binary(min_size=2, max_size=2),
    _properties,
    st.sampled_from([b"hi", b"", b'{"id": "a"}', b'{"prompt": "x"}', b"{", b"\xff"]),
)
_others = st.builds(framed, st.integers(0, 255), _short, st.none() | st.integers(0, 2**28 - 1))


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    """A packet with a byte changed, or a piece missing."""
    raw = bytearray(draw(_publishes | _others))
    at = draw(st.integers(0, len(raw) - 1))
    if draw(st.booleans()):
        raw[at] = draw(st.integers(0, 255))
    else:
        del raw[at : at + draw(st.integers(1, 4))]
    return bytes(raw)


_greetings = st.sampled_from([ACCEPTED_V5, ACCEPTED_V5, ACCEPTED_V5, b""])
_streams = st.builds(
    lambda greeting, packets: greeting + b"".join(packets),
    _greetings,
    st.lists(_publishes | _others | _broken() | st.binary(max_size=40), min_size=1, max_size=4),
)


async def _survives(streams: list[bytes]) -> None:
    """Each stream over a connection of its own, then a broker that behaves, and a prompt."""
    left = list(streams)

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if left:
            writer.write(left.pop(0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await reader.read()
            return
        writer.write(ACCEPTED_V5 if level == 5 else ACCEPTED)
        _, subscribe = await packet_of(reader, 0x80)
        writer.write(b"\x90\x05" + subscribe[:2] + b"\x00\x01\x01")
        writer.write(publish("edged/v1/n/cancel/me", b"{", 7))
        while True:
            _, body = await packet_of(reader, 0x30)
            if body[2:].startswith(b"edged/v1/n/rejected"):
                answered.set()

    answered = asyncio.Event()
    async with broker(answer) as mqtt:
        transport = MqttTransport(Settings(node="n", mqtt=mqtt), Taker())
        running = asyncio.create_task(transport.run())
        try:
            async with asyncio.timeout(20):
                await answered.wait()
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.mark.parametrize(
    "examples", [60, pytest.param(5_000, marks=pytest.mark.campaign)], ids=["some", "many"]
)
def test_after_any_packets_it_comes_back_and_serves(examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[*HealthCheck])
    @given(streams=st.lists(_streams, min_size=1, max_size=3))
    def check(streams: list[bytes]) -> None:
        asyncio.run(_survives(streams))

    check()


# What it may hold of one connection


@contextlib.asynccontextmanager
async def flooded(
    packets: Iterator[bytes], protocol: str
) -> AsyncIterator[tuple[Listener, asyncio.Event, asyncio.Event]]:
    """A connection that is sent all of them; the events: it was, and we have ended it."""
    all_sent, hung_up = asyncio.Event(), asyncio.Event()
    connections = 0

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal connections
        connections += 1
        writer.write(ACCEPTED_V5 if level == 5 else ACCEPTED)
        if connections > 1:
            hung_up.set()
            await reader.read()
            return
        for each in packets:
            writer.write(each)
            await writer.drain()
        all_sent.set()
        await reader.read()

    async with broker(answer, protocol=protocol) as mqtt, connected(mqtt) as (_, listener):
        yield listener, all_sent, hung_up


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_messages_of_qos_2_are_not_kept_until_a_release_that_never_comes(
    protocol: str,
) -> None:
    properties = b"\x00" if protocol == "5" else b""
    body = bytes(100_000)
    packets = (
        framed(0x34, text(b"edged/v1/n/prompt") + struct.pack(">H", number) + properties + body)
        for number in range(1, 500)
    )
    async with flooded(packets, protocol) as (_, _, hung_up):
        await asyncio.wait_for(hung_up.wait(), 20)


async def test_a_broker_that_does_not_wait_for_acknowledgements_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "PACKET_IDS", 3_000)
    packets = (publish("edged/v1/n/prompt", b"x", number) for number in range(1, 10_000))
    async with flooded(packets, "5") as (_, _, hung_up):
        await asyncio.wait_for(hung_up.wait(), 20)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_payload_of_any_length_takes_no_more_memory_than_one_that_is_looked_into(
    protocol: str,
) -> None:
    length = 128 * MIB
    head = text(b"edged/v1/n/prompt") + struct.pack(">H", 7) + (b"\x00" if protocol == "5" else b"")
    before, most = _resident_bytes(), 0

    def packets() -> Iterator[bytes]:
        nonlocal most
        yield framed(0x32, head, len(head) + length)
        for _ in range(length // MIB):
            most = max(most, _resident_bytes())
            yield bytes(MIB)

    async with flooded(packets(), protocol) as (listener, all_sent, _):
        await asyncio.wait_for(all_sent.wait(), 60)
        incoming, _ = await soon(listener.messages)
    assert len(incoming.payload) > PARSED_FACTOR * MqttSettings().max_payload_bytes
    assert len(incoming.payload) < 16 * MIB
    assert most - before < 32 * MIB


@pytest.mark.parametrize("end", [b"", b"!"], ids=["so long", "longer"])
async def test_a_payload_as_long_as_is_looked_into_comes_whole(end: bytes) -> None:
    payload = bytes(PARSED_FACTOR * MqttSettings().max_payload_bytes) + end
    packets = iter([framed(0x30, text(b"edged/v1/n/prompt") + b"\x00" + payload)])
    async with flooded(packets, "5") as (listener, _, _):
        incoming, _ = await soon(listener.messages)
    assert incoming.payload == payload


# What honest brokers hand on though they should not

UNREADABLE = {
    "format": b"\x01\x02",
    "twice": b"\x03\x00\x01a\x03\x00\x01b",
    "unknown": b"\x7e",
    "of another packet": b"\x12\x00\x01a",
    "no alias": b"\x23\x00\x00",
    "cut": b"\x08\x00\xffa",
}


@pytest.mark.parametrize("properties", [*UNREADABLE.values()], ids=[*UNREADABLE])
async def test_a_message_whose_properties_cannot_be_read_is_told_as_such_and_harms_no_other(
    properties: bytes,
) -> None:
    body = text(b"edged/v1/n/prompt") + b"\x00\x07" + bytes([len(properties)]) + properties

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5 + framed(0x32, body + b"hi"))
        writer.write(publish("edged/v1/n/prompt", b"and the next", 8))
        await reader.read()

    async with broker(answer) as mqtt, connected(mqtt) as (_, listener):
        first, next_ = [(await soon(listener.messages))[0] for _ in range(2)]
    assert not first.are_properties_readable
    assert next_ == Incoming("edged/v1/n/prompt", b"and the next")
