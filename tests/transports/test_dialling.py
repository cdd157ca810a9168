"""Several brokers: which is tried when, and what is said when none is there."""

import asyncio

import pytest
from scripted_broker import ACCEPTED_V5, broker, connected, soon, until

from edged.cli.bus import Bus
from edged.cli.local_broker import free_port
from edged.errors import BrokerError
from edged.settings import MqttSettings


async def let_in(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ACCEPTED_V5)
    await reader.read()


def at(*ports: int) -> MqttSettings:
    first, *others = ports
    return MqttSettings(
        host="127.0.0.1", port=first, fallbacks=tuple(f"127.0.0.1:{port}" for port in others)
    )


async def test_where_the_first_broker_is_not_the_next_one_is_tried() -> None:
    async with (
        broker(let_in) as there,
        connected(at(free_port(), there.port)) as (connection, listener),
    ):
        await soon(listener.times)
        assert connection.problem is None


async def test_a_broker_that_refuses_us_is_passed_over_as_well() -> None:
    async def refuse(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x03\x00\x87\x00")  # not authorized
        await reader.read()

    async with (
        broker(refuse) as strict,
        broker(let_in) as there,
        connected(at(strict.port, there.port)) as (_, listener),
    ):
        await soon(listener.times)


async def test_after_a_loss_the_first_broker_is_tried_first_again() -> None:
    connections: list[str] = []
    serves = asyncio.Event()

    async def first(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append("first")
        if len(connections) == 1:
            writer.write(b"\x20\x03\x00\x88\x00")  # server unavailable
            return
        writer.write(ACCEPTED_V5)
        await reader.read()

    async def second(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append("second")
        writer.write(ACCEPTED_V5)
        await serves.wait()

    async with (
        broker(first) as one,
        broker(second) as other,
        connected(at(one.port, other.port)) as (_, listener),
    ):
        await soon(listener.times)
        serves.set()
        await soon(listener.times)
        assert connections == ["first", "second", "first"]


async def test_when_none_is_there_each_is_named() -> None:
    ports = free_port(), free_port()
    async with connected(at(*ports)) as (connection, _):
        await until(lambda: connection.problem)
        assert connection.problem == (
            f"no broker at 127.0.0.1:{ports[0]} (Connection refused), "
            f"no broker at 127.0.0.1:{ports[1]} (Connection refused); "
            "start one, or set mqtt.host and mqtt.port"
        )


async def test_a_command_tries_each_in_turn_too() -> None:
    def enter(settings: MqttSettings) -> None:
        with Bus(settings):
            pass

    async with broker(let_in) as there:
        await asyncio.to_thread(enter, at(free_port(), there.port))


def test_a_command_names_each_when_none_is_there() -> None:
    ports = free_port(), free_port()
    with pytest.raises(BrokerError) as caught, Bus(at(*ports)):
        pass

    assert all(f"no broker at 127.0.0.1:{port}" in str(caught.value) for port in ports)
