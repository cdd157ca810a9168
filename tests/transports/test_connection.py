"""The connection, against a broker whose every byte the test decides.

What a real Mosquitto can be made to do is tested in tests/system.
"""

import asyncio
import socket
from collections.abc import Callable

import pytest
from scripted_broker import (
    ACCEPTED,
    ACCEPTED_V5,
    PUBACK,
    REFUSED_VERSION,
    Listener,
    broker,
    connected,
    packet,
    packet_of,
    publish,
    soon,
    until,
)

from edged.settings import MqttSettings
from edged.transports import dialling, paho_loop
from edged.transports.connection import BrokerConnection
from edged.transports.decode import Incoming
from edged.transports.outgoing import Publish


@pytest.mark.parametrize("refusal", [REFUSED_VERSION, b""], ids=["says so", "closes"])
async def test_a_broker_without_version_5_gets_3_1_1(refusal: bytes) -> None:
    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(refusal if level == 5 else ACCEPTED)
        if level != 5:
            await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        assert not connection.speaks_v5


async def test_a_broker_that_does_not_answer_version_5_gets_3_1_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialling, "V5_TIMEOUT_S", 0.3)

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if level != 5:
            writer.write(ACCEPTED)
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        assert not connection.speaks_v5


async def test_a_broker_that_was_only_starting_is_greeted_with_version_5_again_after_a_loss() -> (
    None
):
    levels: list[int] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        levels.append(level)
        if len(levels) > 1:
            writer.write(ACCEPTED_V5 if level == 5 else ACCEPTED)
        if len(levels) > 2:
            await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        await until(lambda: connection.is_connected and connection.speaks_v5)

    assert levels == [5, 4, 5]


async def test_what_was_not_acknowledged_is_sent_again_over_the_next_connection() -> None:
    published: list[bytes] = []
    again: asyncio.Queue[None] = asyncio.Queue()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if level == 5:
            writer.write(REFUSED_VERSION)
            return
        writer.write(ACCEPTED)
        while True:
            kind, body = await packet(reader)
            if kind & 0xF0 == 0x30:
                published.append(body)
                if len(published) == 1:
                    return  # gone without an acknowledgement
                again.put_nowait(None)

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("a/topic", b"terminal", qos=1))
        await soon(again)
        assert published[1].endswith(b"terminal")


async def test_denied_subscriptions_are_a_problem_that_is_told() -> None:
    answered: asyncio.Queue[None] = asyncio.Queue()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        _, body = await packet(reader)
        writer.write(b"\x90\x04" + body[:2] + b"\x00\x87")
        await writer.drain()
        answered.put_nowait(None)
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.subscribe(["a/+"])
        await soon(answered)
        for _ in range(100):
            if connection.problem:
                break
            await asyncio.sleep(0.02)
        assert connection.problem is not None
        assert "denies 1 of 1 subscriptions" in connection.problem


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "no-such-host.invalid"])
async def test_a_host_that_cannot_be_is_a_problem_and_no_crash(host: str) -> None:
    settings = MqttSettings(host=host)
    async with connected(settings) as (connection, _):
        for _ in range(500):
            if connection.problem:
                break
            await asyncio.sleep(0.02)
        assert connection.problem is not None
        assert "set mqtt.host" in connection.problem


# What comes in


def numbers(acknowledged: list[bytes]) -> list[int]:
    return [int.from_bytes(body[:2], "big") for body in acknowledged]


async def test_a_broker_that_sends_at_once_all_that_has_waited_is_heard() -> None:
    """As Mosquitto does, whatever our Receive Maximum, after some lost connections."""
    waited = 60 * dialling.RECEIVE_MAXIMUM

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        for number in range(1, waited + 1):
            writer.write(publish("a", b"x", number))
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await until(lambda: listener.messages.qsize() == waited)
        assert connection.is_connected


async def test_what_comes_while_it_spares_the_engine_is_read_nevertheless() -> None:
    heard: asyncio.Queue[None] = asyncio.Queue()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        for number in range(1, 4):
            writer.write(publish("a", b"x", number))
            await heard.get()
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        for _ in range(3):
            await soon(listener.messages)
            connection.spare()
            heard.put_nowait(None)


async def test_a_connection_that_is_lost_while_it_spares_the_engine_comes_back() -> None:
    spared = asyncio.Event()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5 + publish("a", b"x"))
        if not spared.is_set():
            await spared.wait()
            writer.transport.abort()
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.messages)
        connection.spare()
        spared.set()
        await soon(listener.messages)


async def test_what_comes_is_acknowledged_when_it_is_done_and_in_the_order_received() -> None:
    acknowledged: list[bytes] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        for number in (11, 12, 13):
            writer.write(publish("a/topic", b"", number))
        while True:
            acknowledged.append((await packet_of(reader, PUBACK))[1])

    async with broker(answer) as settings, connected(settings) as (_, listener):
        first, second, third = [(await soon(listener.messages))[1] for _ in range(3)]
        third()
        second()
        await asyncio.sleep(0.1)
        assert acknowledged == []
        first()
        await until(lambda: len(acknowledged) == 3)
        assert numbers(acknowledged) == [11, 12, 13]


async def test_what_came_over_an_earlier_connection_is_not_acknowledged_over_the_next() -> None:
    acknowledged: list[bytes] = []
    connections: list[asyncio.StreamWriter] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connections.append(writer)
        # A broker that lost its state uses the same id for another message.
        payload = b"lost" if len(connections) == 1 else b"new"
        writer.write(ACCEPTED_V5 + publish("a/topic", payload, 7))
        while True:
            acknowledged.append((await packet_of(reader, PUBACK))[1])

    async with broker(answer) as settings, connected(settings) as (_, listener):
        _, late = await soon(listener.messages)
        connections[0].close()
        incoming, acknowledge = await soon(listener.messages)
        late()
        await asyncio.sleep(0.1)
        assert (incoming.payload, acknowledged) == (b"new", [])
        acknowledge()
        await until(lambda: acknowledged)
        assert numbers(acknowledged) == [7]


async def test_what_a_defect_hinders_is_acknowledged_or_it_would_come_back_for_ever() -> None:
    acknowledged: asyncio.Queue[bytes] = asyncio.Queue()

    class Defective(Listener):
        def received(self, incoming: Incoming, acknowledge: Callable[[], None]) -> None:
            raise RuntimeError("a defect")

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5 + publish("a/topic", b"", 7))
        acknowledged.put_nowait((await packet_of(reader, PUBACK))[1])
        await reader.read()

    async with broker(answer) as settings:
        connection = BrokerConnection(settings, dialling.Session("test"))
        task = asyncio.create_task(connection.run(Defective()))
        assert numbers([await soon(acknowledged)]) == [7]
        task.cancel()


# A path that is cut


async def test_the_kernel_gives_up_on_a_silent_broker_within_the_keep_alive() -> None:
    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        await reader.read()

    async with (
        broker(answer, keepalive_s=20) as settings,
        connected(settings) as (connection, listener),
    ):
        await soon(listener.times)
        client = connection._dialler.client
        assert client is not None
        sock = client.socket()
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


async def test_what_has_gathered_under_a_flood_is_read_when_there_is_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paho_loop, "REST_S", 0.0)
    monkeypatch.setattr(paho_loop, "REST_MOST_S", 3600.0)
    to_send: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        writer.write(await to_send.get())
        writer.write(await to_send.get())
        await reader.read()

    async with broker(answer, protocol="5") as mqtt, connected(mqtt) as (connection, listener):
        await soon(listener.times)
        connection.spare()
        to_send.put_nowait(publish("first", b""))
        await soon(listener.messages)
        to_send.put_nowait(publish("second", b""))
        await asyncio.sleep(0.2)
        is_resting = listener.messages.empty()
        connection.look()
        incoming, _ = await soon(listener.messages)

    assert is_resting
    assert incoming.topic == "second"
