"""What goes out, against a broker whose every byte the test decides: kept, sent again, dropped."""

import asyncio
import struct

import pytest
from scripted_broker import (
    ACCEPTED,
    ACCEPTED_V5,
    PUBACK,
    PUBLISH,
    REFUSED_VERSION,
    broker,
    connected,
    packet,
    packet_id,
    packet_of,
    puback,
    publish,
    soon,
    until,
)

from edged.transports import dialling, outgoing
from edged.transports.connection import BrokerConnection
from edged.transports.outgoing import MAX_KEPT, MAX_UNACKNOWLEDGED, Publish


async def test_a_message_is_delivered_once_the_broker_has_acknowledged_it() -> None:
    delivered: list[str] = []
    held: asyncio.Queue[bytes] = asyncio.Queue()
    let_go = asyncio.Event()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        _, body = await packet_of(reader, PUBLISH)
        held.put_nowait(body)
        await let_go.wait()
        writer.write(2 * puback(body))
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("a/topic", b"terminal", qos=1), lambda: delivered.append("yes"))
        await soon(held)
        await asyncio.sleep(0.1)
        assert delivered == []
        let_go.set()
        await until(lambda: delivered)
        await asyncio.sleep(0.1)
        assert delivered == ["yes"]


async def test_a_message_is_delivered_when_only_the_next_connection_acknowledges_it() -> None:
    delivered: list[str] = []
    published: list[tuple[int, bytes]] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        published.append(await packet_of(reader, PUBLISH))
        if len(published) == 1:
            return  # gone without an acknowledgement
        writer.write(puback(published[1][1]))
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("a/topic", b"terminal", qos=1), lambda: delivered.append("yes"))
        await until(lambda: delivered)
        (first, once), (second, again) = published
        assert (delivered, packet_id(once)) == (["yes"], packet_id(again))
        assert (first & 8, second & 8) == (0, 8)  # the flag DUP


async def test_a_message_that_the_broker_hangs_up_on_keeps_the_others_no_longer_than_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outgoing, "HELD_S", 0.0)
    monkeypatch.setattr("edged.transports.connection.BACKOFF_FIRST_S", 0.01)
    delivered: list[str] = []
    others: list[bytes] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        while True:
            _, body = await packet_of(reader, PUBLISH)
            if b"forbidden" in body and not others:
                return
            others.append(body)
            writer.write(puback(body))

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("forbidden", b"x", qos=1), lambda: delivered.append("no"))
        connection.publish(Publish("a/topic", b"y", qos=1), lambda: delivered.append("yes"))
        await until(lambda: delivered)
        connection.publish(Publish("a/topic", b"z", qos=1))  # whereupon the other is tried again
        await until(lambda: len(delivered) > 1)

    assert delivered == ["yes", "no"]


async def test_a_message_that_connections_end_with_at_once_is_held_back_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edged.transports.connection.BACKOFF_FIRST_S", 0.01)
    connections: list[int] = []
    published: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connections.append(level)
        if 1 < len(connections) <= outgoing.LOSSES:  # ended before anything new can be sent
            writer.write(ACCEPTED_V5 + b"\xe0\x02\x95\x00")
            return
        writer.write(ACCEPTED_V5)
        published.put_nowait((await packet_of(reader, PUBLISH))[1])
        if len(connections) > outgoing.LOSSES:
            await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("forbidden", b"x", qos=1))
        assert (await soon(published)).endswith(b"x")
        connection.publish(Publish("a/topic", b"y", qos=1))
        assert (await soon(published)).endswith(b"y")


async def test_a_message_larger_than_the_broker_takes_is_not_sent() -> None:
    published: asyncio.Queue[bytes] = asyncio.Queue()
    delivered: list[str] = []
    left_out: list[tuple[str, str]] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x40")  # Maximum Packet Size 64
        while True:
            _, body = await packet_of(reader, PUBLISH)
            published.put_nowait(body)
            writer.write(puback(body))

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        connection.outgoing.left_out.append(
            lambda message, sizes: left_out.append((message.topic, sizes))
        )
        await soon(listener.times)
        connection.publish(Publish("big", bytes(60), qos=1), lambda: delivered.append("big"))
        connection.publish(Publish("a", bytes(40), qos=1), lambda: delivered.append("small"))
        await until(lambda: len(delivered) == 2)

    assert published.get_nowait().endswith(bytes(40))
    assert published.empty()
    assert (delivered, left_out) == (
        ["big", "small"],
        [("big", "60 bytes, in packets of up to 64")],
    )


async def test_what_is_published_before_the_first_connection_is_sent_then_and_in_order() -> None:
    published: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        while True:
            _, body = await packet_of(reader, PUBLISH)
            published.put_nowait(body)
            writer.write(puback(body))

    async with broker(answer) as settings:
        connection = BrokerConnection(settings, dialling.Session("test"))
        for number in range(50):
            connection.publish(Publish("a/topic", b"%02d" % number, qos=1))
        async with connected(settings, connection):
            sent = [(await soon(published))[-2:] for _ in range(50)]
        assert sent == [b"%02d" % number for number in range(50)]


async def test_another_version_takes_over_what_was_not_acknowledged() -> None:
    published: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
    levels: list[int] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        levels.append(level)
        if level == 5 and levels.count(5) == 1:
            writer.write(ACCEPTED_V5)
            for _ in range(2):
                published.put_nowait((level, (await packet_of(reader, PUBLISH))[1]))
            return
        if level == 5:
            writer.write(REFUSED_VERSION)
            return
        writer.write(ACCEPTED)
        while True:
            _, body = await packet_of(reader, PUBLISH)
            published.put_nowait((level, body))
            writer.write(puback(body))

    delivered: list[bytes] = []
    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        for text in (b"one", b"two"):
            connection.publish(
                Publish("a/topic", text, qos=1), lambda text=text: delivered.append(text)
            )
        sent = [await soon(published) for _ in range(4)]
        await until(lambda: len(delivered) == 2)
        assert [(level, body[-3:]) for level, body in sent[2:]] == [(4, b"one"), (4, b"two")]
        assert delivered == [b"one", b"two"]


@pytest.mark.parametrize(
    ("connack", "window"),
    [(ACCEPTED_V5, outgoing.WINDOW), (b"\x20\x06\x00\x00\x03\x21\x00\x03", 3)],
    ids=["no limit of its own", "Receive Maximum 3"],
)
async def test_no_more_is_in_flight_than_the_broker_takes(connack: bytes, window: int) -> None:
    published: list[bytes] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(connack)
        while True:
            published.append((await packet_of(reader, PUBLISH))[1])

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        for _ in range(2 * outgoing.WINDOW):
            connection.publish(Publish("a/topic", b"", qos=1))
        await until(lambda: len(published) >= window)
        await asyncio.sleep(0.1)
        assert len(published) == window


async def test_no_message_is_lost_when_the_packet_ids_come_round() -> None:
    published: list[bytes] = []
    delivered: list[str] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        while True:
            kind, body = await packet_of(reader, PUBLISH)
            if kind & 6:
                published.append(body)
            if body.endswith(b"second"):
                writer.write(puback(body))

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        client = connection._dialler.client
        assert client is not None
        connection.publish(Publish("a/topic", b"first", qos=1), lambda: delivered.append("first"))
        first_id = client._last_mid
        client._last_mid = first_id - 1 or 65535
        connection.publish(Publish("a/topic", b"watched"))  # with the packet id of the first
        client._last_mid = first_id - 1 or 65535
        connection.publish(Publish("a/topic", b"second", qos=1), lambda: delivered.append("second"))
        await until(lambda: delivered)
        assert [body[-6:] for body in published] == [b"\x00first", b"second"]
        assert delivered == ["second"]


async def test_a_message_that_the_broker_refuses_is_no_more_to_be_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    delivered: list[str] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        _, body = await packet_of(reader, PUBLISH)
        writer.write(b"\x40\x03" + packet_id(body) + b"\x87")
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("a/topic", b"x", qos=1), lambda: delivered.append("yes"))
        await until(lambda: delivered)
        assert "the last, on a/topic: Not authorized" in caplog.text


async def test_what_is_only_to_be_watched_expires_and_what_must_arrive_does_not() -> None:
    published: list[bytes] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        while True:
            published.append((await packet_of(reader, PUBLISH))[1])

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("a", b"delta", expiry_s=60))
        connection.publish(Publish("a", b"terminal", qos=1))
        await until(lambda: len(published) == 2)
        assert published[0] == b"\x00\x01a\x05\x02" + struct.pack(">I", 60) + b"delta"
        assert published[1].endswith(b"\x00terminal")  # no property


# Bounds


async def test_deltas_are_dropped_and_terminals_kept_while_the_broker_reads_nothing() -> None:
    reads = asyncio.Event()
    terminals: list[bytes] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        await reads.wait()
        while True:
            kind, body = await packet_of(reader, PUBLISH)
            if kind & 6:
                terminals.append(body[-2:])
                writer.write(puback(body))

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        delta = bytes(16 * 1024)
        for number in range(40):
            for _ in range(40):
                connection.publish(Publish("a/topic", delta))
                await asyncio.sleep(0)
            connection.publish(Publish("a/topic", b"%02d" % number, qos=1))
        client = connection._dialler.client
        assert client is not None
        waiting_bytes = sum(each["to_process"] for each in client._out_packet)
        assert connection.outgoing.dropped > 0
        assert waiting_bytes < 1.1 * outgoing.MAX_UNSENT_BYTES
        reads.set()
        await until(lambda: len(terminals) == 40)
        assert terminals == [b"%02d" % number for number in range(40)]


async def test_deltas_flow_again_once_the_broker_reads() -> None:
    reads, seen = asyncio.Event(), asyncio.Event()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        await reads.wait()
        while not seen.is_set():
            if (await packet_of(reader, PUBLISH))[1].endswith(b"after"):
                seen.set()
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        while not connection.outgoing.dropped:
            connection.publish(Publish("a/topic", bytes(16 * 1024)))
            await asyncio.sleep(0)
        reads.set()
        async with asyncio.timeout(20):
            while not seen.is_set():
                connection.publish(Publish("a/topic", b"after"))
                await asyncio.sleep(0.05)


async def test_a_broker_that_acknowledges_nothing_is_acknowledged_nothing_until_it_does() -> None:
    acknowledged: list[bytes] = []
    held: list[bytes] = []
    acknowledges = asyncio.Event()

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5 + publish("a/prompt", b"", 7))
        while True:
            kind, body = await packet(reader)
            if kind & 0xF0 == PUBACK:
                acknowledged.append(body)
            elif kind & 0xF0 == PUBLISH:
                held.extend([body] if kind & 6 else [])
                if acknowledges.is_set():
                    writer.write(b"".join(puback(each) for each in held))
                    held.clear()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        _, acknowledge = await soon(listener.messages)
        for _ in range(MAX_UNACKNOWLEDGED + 1):
            connection.publish(Publish("a/topic", b"accepted", qos=1))
        acknowledge()
        await until(lambda: len(held) == outgoing.WINDOW)
        await asyncio.sleep(0.1)
        assert acknowledged == []
        acknowledges.set()
        connection.publish(Publish("a/topic", b"a delta"))  # QoS 0, which wakes the script
        await until(lambda: acknowledged)
        assert acknowledged == [b"\x00\x07"]


async def test_prompts_that_nothing_can_hold_back_are_ignored_while_too_much_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        writers.append(writer)
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        for _ in range(MAX_UNACKNOWLEDGED + 1):
            connection.publish(Publish("a/topic", b"accepted", qos=1))
        for payload in (b"one", b"two"):
            writers[0].write(publish("a/prompt", payload))
        writers[0].write(publish("a/prompt", b"three", 7))
        incoming, _ = await soon(listener.messages)
        assert incoming.payload == b"three"
        assert caplog.text.count("ignored 1 messages that came with QoS 0") == 1


async def test_what_a_broker_leaves_waiting_is_bounded_but_for_what_is_counted_on() -> None:
    waiting = outgoing.Outgoing()
    for _ in range(2 * MAX_KEPT):
        waiting.publish(Publish("refusals", b"no", qos=1))
    assert len(waiting) == MAX_KEPT
    waiting.publish(Publish("answers", b"yes", qos=1), lambda: None)
    waiting.publish(Publish("status", b"online", qos=1, retain=True))
    assert len(waiting) == MAX_KEPT + 2


async def test_more_messages_than_are_held_back_are_given_up_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outgoing, "MAX_HELD", 1)
    monkeypatch.setattr("edged.transports.connection.BACKOFF_FIRST_S", 0.01)
    delivered: list[str] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(ACCEPTED_V5)
        while True:
            _, body = await packet_of(reader, PUBLISH)
            if b"forbidden" in body:
                return
            writer.write(puback(body))

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        for name in ("first", "second"):
            connection.publish(
                Publish("forbidden", name.encode(), qos=1),
                lambda name=name: delivered.append(name),
            )
        await until(lambda: len(connection.outgoing._held) == 1 and delivered)

    assert delivered == ["first"]


async def test_a_message_that_is_held_back_is_tried_again_though_nothing_else_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outgoing, "HELD_S", 1.0)
    monkeypatch.setattr("edged.transports.connection.BACKOFF_FIRST_S", 0.01)
    delivered: list[str] = []
    connections: list[int] = []

    async def answer(
        level: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connections.append(level)
        writer.write(ACCEPTED_V5)
        if len(connections) <= outgoing.LOSSES:
            await packet_of(reader, PUBLISH)
            return
        sent = asyncio.create_task(packet_of(reader, PUBLISH))
        while not sent.done():
            writer.write(publish("a/prompt", b"something to read"))
            await asyncio.wait((sent,), timeout=0.1)
        writer.write(puback(sent.result()[1]))
        await reader.read()

    async with broker(answer) as settings, connected(settings) as (connection, listener):
        await soon(listener.times)
        connection.publish(Publish("a/topic", b"x", qos=1), lambda: delivered.append("yes"))
        await until(lambda: delivered)


async def test_of_what_is_retained_only_the_last_waits() -> None:
    waiting = outgoing.Outgoing()
    for number in range(9):
        waiting.publish(Publish("card", b"%d" % number, qos=1, retain=True))
        waiting.publish(Publish("status", b"online", qos=1, retain=True))
    assert [kept.message.payload for kept in waiting._waiting] == [b"8", b"online"]
