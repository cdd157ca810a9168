"""The connection, against a broker whose every byte the test decides.

What a real Mosquitto can be made to do is tested in tests/system.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from edged.settings import MqttSettings
from edged.transports import connection as module
from edged.transports.connection import BrokerConnection, Publish
from edged.transports.decode import Incoming

PATIENCE_S = 20.0
ACCEPTED = b"\x20\x02\x00\x00"
ACCEPTED_V5 = b"\x20\x03\x00\x00\x00"
REFUSED_VERSION = b"\x20\x02\x00\x01"
WILL = Publish("status", b"offline", qos=1, retain=True)

Script = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], "asyncio.Future[None]"]


class Listener:
    def __init__(self) -> None:
        self.times: asyncio.Queue[None] = asyncio.Queue()

    def connected(self) -> None:
        self.times.put_nowait(None)

    def received(self, incoming: Incoming) -> None:
        raise AssertionError(incoming)


async def packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One MQTT packet: its first byte, and what follows the length."""
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return kind, await reader.readexactly(length)


def version(connect: bytes) -> int:
    """The protocol level of a CONNECT: 4 is 3.1.1, 5 is 5."""
    return connect[6]


@contextlib.asynccontextmanager
async def broker(answer: Script) -> AsyncIterator[MqttSettings]:
    """Runs ``answer`` for each connection, with its protocol level."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            _, connect = await packet(reader)
            await answer(version(connect), reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield MqttSettings(host="127.0.0.1", port=port)
        await asyncio.wait_for(asyncio.gather(*serving), PATIENCE_S)


@contextlib.asynccontextmanager
async def connected(settings: MqttSettings) -> AsyncIterator[tuple[BrokerConnection, Listener]]:
    connection, listener = BrokerConnection(settings, "test", WILL), Listener()
    task = asyncio.create_task(connection.run(listener))
    try:
        yield connection, listener
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def soon(queue: "asyncio.Queue[None]") -> None:
    await asyncio.wait_for(queue.get(), PATIENCE_S)


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
    monkeypatch.setattr(module, "V5_TIMEOUT_S", 0.3)

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if level != 5:
            writer.write(ACCEPTED)
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        assert not connection.speaks_v5


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
