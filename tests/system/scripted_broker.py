"""A broker whose every byte the test decides, and a connection to it."""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from edged.settings import MqttSettings
from edged.transports.connection import BrokerConnection
from edged.transports.decode import Incoming
from edged.transports.dialling import Session
from edged.transports.outgoing import Publish

PATIENCE_S = 20.0
ACCEPTED = b"\x20\x02\x00\x00"
ACCEPTED_V5 = b"\x20\x03\x00\x00\x00"
REFUSED_VERSION = b"\x20\x02\x00\x01"
PUBLISH, PUBACK = 0x30, 0x40
SESSION = Session("test", Publish("status", b"offline", qos=1, retain=True))

Script = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Takes note of connections, and keeps the messages, unacknowledged, for the test."""

    def __init__(self) -> None:
        self.times: asyncio.Queue[None] = asyncio.Queue()
        self.messages: asyncio.Queue[tuple[Incoming, Callable[[], None]]] = asyncio.Queue()

    def connected(self) -> None:
        self.times.put_nowait(None)

    def received(self, incoming: Incoming, acknowledge: Callable[[], None]) -> None:
        self.messages.put_nowait((incoming, acknowledge))


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


async def packet_of(reader: asyncio.StreamReader, wanted: int) -> tuple[int, bytes]:
    """The next packet of this kind."""
    while True:
        kind, body = await packet(reader)
        if kind & 0xF0 == wanted:
            return kind, body


def version(connect: bytes) -> int:
    """The protocol level of a CONNECT: 4 is 3.1.1, 5 is 5."""
    return connect[6]


def packet_id(publish: bytes) -> bytes:
    """That of a PUBLISH with QoS 1, as it stands on the wire."""
    start = 2 + int.from_bytes(publish[:2], "big")
    return publish[start : start + 2]


def puback(of: bytes) -> bytes:
    """The answer to a PUBLISH with QoS 1."""
    return b"\x40\x02" + packet_id(of)


def publish(topic: str, payload: bytes, number: int | None = None) -> bytes:
    """A PUBLISH in MQTT 5, with QoS 1 if it has a packet id."""
    first = 0x30 if number is None else 0x32
    body = struct.pack(">H", len(topic)) + topic.encode()
    body += b"" if number is None else struct.pack(">H", number)
    body += b"\x00" + payload
    assert len(body) < 128
    return bytes([first, len(body)]) + body


@contextlib.asynccontextmanager
async def broker(
    answer: Script, context: ssl.SSLContext | None = None, **more: Any
) -> AsyncIterator[MqttSettings]:
    """Runs ``answer`` for each connection, with its protocol level; ``context`` is for TLS."""

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

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield MqttSettings(host="127.0.0.1", port=port, **more)
        await asyncio.wait_for(asyncio.gather(*serving), PATIENCE_S)


@contextlib.asynccontextmanager
async def connected(
    settings: MqttSettings, connection: BrokerConnection | None = None
) -> AsyncIterator[tuple[BrokerConnection, Listener]]:
    connection, listener = connection or BrokerConnection(settings, SESSION), Listener()
    task = asyncio.create_task(connection.run(listener))
    try:
        yield connection, listener
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def soon(queue: "asyncio.Queue[Any]") -> Any:
    return await asyncio.wait_for(queue.get(), PATIENCE_S)


async def until(holds: Callable[[], object]) -> None:
    """Wait for what will be true soon."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 (it may be anything)
            await asyncio.sleep(0.01)
