"""The transport on a real Mosquitto, with a taker of the test's own in the pipeline's place."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from bus_client import BusClient
from node import Broker
from scripted_broker import soon, until

from edged.messages import Delta, Done, Origin, Prompt, Reply, Timings, Usage
from edged.settings import MqttSettings, Settings
from edged.transports.decode import Incoming
from edged.transports.mqtt import MqttTransport

DONE = Done("hi", "stop", Usage(1, 0, 1), Timings(0.0, None, None, None), 7)


class Taker:
    """Keeps what is submitted for the test."""

    def __init__(self) -> None:
        self.prompts: asyncio.Queue[tuple[Prompt, Origin]] = asyncio.Queue()

    def submit(self, prompt: Prompt, origin: Origin) -> None:
        self.prompts.put_nowait((prompt, origin))

    def cancel(self, client: str, prompt_id: str) -> bool:
        return False


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=["5", "3.1.1"])
def settings(broker: Broker, request: pytest.FixtureRequest) -> Settings:
    return Settings(
        node=f"attic-{uuid.uuid4().hex[:8]}",  # of which the broker has no session
        mqtt=MqttSettings(
            host="127.0.0.1", port=broker.port, protocol=request.param, text_replies=True
        ),
    )


@pytest.fixture
def client(broker: Broker) -> Iterator[BusClient]:
    with BusClient(broker.port) as client:
        yield client


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, transport: MqttTransport | None = None
) -> AsyncIterator[tuple[MqttTransport, Taker]]:
    taker = Taker()
    transport = transport or MqttTransport(settings, taker)
    task = asyncio.create_task(transport.run())
    try:
        await until(lambda: transport._connection.is_connected)
        await asyncio.sleep(0.1)  # until it has subscribed
        yield transport, taker
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def send(client: BusClient, node: str, prompt_id: str, **more: Any) -> None:
    topic = f"edged/v1/{node}/prompt"
    await asyncio.to_thread(client.publish, topic, {"id": prompt_id, "prompt": "hi"}, **more)


async def test_a_prompt_that_was_not_acknowledged_comes_again(
    settings: Settings, client: BusClient
) -> None:
    async with serving(settings) as (_, taker):
        await send(client, settings.node, "1")
        await soon(taker.prompts)
    async with serving(settings) as (_, taker):
        prompt, _ = await soon(taker.prompts)
        assert prompt.id == "1"


async def test_a_prompt_that_was_acknowledged_does_not_come_again(
    settings: Settings, client: BusClient
) -> None:
    async with serving(settings) as (_, taker):
        for number in "12":
            await send(client, settings.node, number)
        (_, first), (_, _second) = await soon(taker.prompts), await soon(taker.prompts)
        first.acknowledge()
        await asyncio.sleep(0.1)
    async with serving(settings) as (_, taker):
        prompt, _ = await soon(taker.prompts)
        assert prompt.id == "2"


@pytest.mark.parametrize("topic", ["prompt", "cancel", "prompt/no name", "cancel/kitchen"])
async def test_what_is_refused_at_once_is_acknowledged_in_its_turn(
    settings: Settings, client: BusClient, topic: str
) -> None:
    async with serving(settings) as (_, taker):
        await asyncio.to_thread(client.publish, f"edged/v1/{settings.node}/{topic}", "{")
        await send(client, settings.node, "1")
        await soon(taker.prompts)
    async with serving(settings) as (_, taker):
        prompt, _ = await soon(taker.prompts)
        await asyncio.sleep(0.1)
        assert prompt.id == "1"


async def test_an_address_that_was_kept_answers_after_a_restart_and_before_the_first_connection(
    settings: Settings, client: BusClient
) -> None:
    async with serving(settings) as (_, taker):
        await send(client, settings.node, "1", correlation=b"\x00\xff")
        _, origin = await soon(taker.prompts)
    await asyncio.to_thread(client.subscribe, f"edged/v1/{settings.node}/completion/anonymous/1")
    delivered: list[str] = []
    transport = MqttTransport(settings, Taker())
    transport.send_to(origin.address)(Reply("1", 0, 0, DONE), lambda: delivered.append("yes"))
    async with serving(settings, transport):
        got = await asyncio.to_thread(client.next)
        await until(lambda: delivered)
        has_properties = settings.mqtt.protocol == "5"
        assert (got.json["text"], delivered) == ("hi", ["yes"])
        assert got.correlation == (b"\x00\xff" if has_properties else None)


async def test_a_plain_reply_is_delivered_with_the_last_of_its_messages(
    settings: Settings, client: BusClient
) -> None:
    delivered: list[str] = []
    async with serving(settings) as (_, taker):
        await asyncio.to_thread(client.subscribe, f"edged/v1/{settings.node}/completion/#")
        await asyncio.to_thread(client.publish, f"edged/v1/{settings.node}/prompt", "hi")
        prompt, origin = await soon(taker.prompts)
        origin.send(Reply(prompt.id, 0, 0, Delta("hi", 1)))
        origin.send(Reply(prompt.id, 1, 0, DONE), lambda: delivered.append("yes"))
        got = [(await asyncio.to_thread(client.next)).payload for _ in range(2)]
        await until(lambda: delivered)
        assert got == [b"hi", b""]


@pytest.mark.parametrize("address", ["", "{", '{"id": "1"}'])
async def test_an_address_that_cannot_be_read_is_no_crash(
    settings: Settings, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    MqttTransport(settings, Taker()).send_to(address)(Reply("1", 0, 0, DONE))

    assert "an address that was kept cannot be read" in caplog.text


async def test_cards_of_the_time_without_a_connection_are_not_all_published_later(
    settings: Settings, client: BusClient
) -> None:
    transport = MqttTransport(settings, Taker())
    for number in range(5):
        transport.publish_card({"number": number})
    await asyncio.to_thread(client.subscribe, f"edged/v1/{settings.node}/card")
    async with serving(settings, transport):
        got = await asyncio.to_thread(client.next)
        await asyncio.to_thread(client.nothing_more)
        assert got.json == {"number": 4}


async def test_who_is_rejected_again_and_again_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = MqttTransport(Settings(node="attic"), Taker())
    for _ in range(9):
        transport.received(Incoming("edged/v1/attic/cancel", b"nonsense"), lambda: None)

    assert caplog.text.count("rejected") == 1
