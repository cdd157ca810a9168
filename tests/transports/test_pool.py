"""Membership of a pool: nodes of one process on a real Mosquitto."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from bus_client import BusClient
from node import Broker
from scripted_broker import PATIENCE_S, until

from edged.messages import Done, Origin, Prompt, Reply, Timings, Usage
from edged.settings import MqttSettings, Settings
from edged.transports.mqtt import MqttTransport

DONE = Done("hi", "stop", Usage(1, 0, 1), Timings(0.0, None, None, None), 7)


class Answering:
    """Answers every prompt, and counts them; acknowledges late where it is told to."""

    def __init__(self, acknowledge_s: float = 0.0) -> None:
        self.ids: list[str] = []
        self._acknowledge_s = acknowledge_s

    def submit(self, prompt: Prompt, origin: Origin) -> None:
        self.ids.append(prompt.id)
        origin.send(Reply(prompt.id, 0, 0, DONE))
        asyncio.get_running_loop().call_later(self._acknowledge_s, origin.acknowledge)

    def cancel(self, client: str, prompt_id: str) -> bool:
        return False


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=["5", "3.1.1"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(broker: Broker) -> Iterator[BusClient]:
    with BusClient(broker.port) as client:
        yield client


@contextlib.asynccontextmanager
async def node(
    broker: Broker, name: str, version: str, taker: Answering, *, require_client: bool = False
) -> AsyncIterator[MqttTransport]:
    mqtt = MqttSettings.model_validate(
        {
            "host": "127.0.0.1",
            "port": broker.port,
            "protocol": version,
            "pools": ("house",),
            "require_client": require_client,
        }
    )
    transport = MqttTransport(Settings(node=name, mqtt=mqtt), taker)
    task = asyncio.create_task(transport.run())
    try:
        await until(lambda: transport._connection.is_connected)
        yield transport
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def is_member(transport: MqttTransport) -> bool:
    return transport._pools._connection.is_connected


async def join(transport: MqttTransport) -> None:
    transport.serve_pools(True)
    await until(lambda: is_member(transport))
    await asyncio.sleep(0.1)  # until it has subscribed


async def leave(transport: MqttTransport) -> None:
    transport.serve_pools(False)
    await until(lambda: not is_member(transport))


async def ask(client: BusClient, prefix: str, count: int, topic: str = "prompt") -> list[str]:
    """Publish so many prompts to the pool; returns their ids."""
    ids = [f"{prefix}-{number}" for number in range(count)]
    for prompt_id in ids:
        body = {"id": prompt_id, "prompt": "hi"}
        await asyncio.to_thread(client.publish, f"edged/v1/pool/house/{topic}", body)
    return ids


async def answers(client: BusClient, count: int) -> list[str]:
    """The ids of the answers, as they come; and no more of them follow."""
    got = [(await asyncio.to_thread(client.next, PATIENCE_S)).json["id"] for _ in range(count)]
    await asyncio.to_thread(client.nothing_more)
    return got


async def test_every_prompt_of_a_pool_is_answered_by_one_of_its_nodes(
    broker: Broker, client: BusClient, version: str
) -> None:
    takers = Answering(), Answering()
    async with (
        node(broker, "attic", version, takers[0]) as attic,
        node(broker, "cellar", version, takers[1]) as cellar,
    ):
        await join(attic)
        await join(cellar)
        await asyncio.to_thread(client.subscribe, "edged/v1/+/completion/#")
        ids = await ask(client, "all", 20)
        assert sorted(await answers(client, 20)) == sorted(ids)
        assert all(taker.ids for taker in takers)


async def test_prompts_of_named_clients_are_taken_and_answered_below_their_name(
    broker: Broker, client: BusClient, version: str
) -> None:
    async with node(broker, "attic", version, Answering()) as attic:
        await join(attic)
        await asyncio.to_thread(client.subscribe, "edged/v1/attic/completion/kitchen/#")
        ids = await ask(client, "named", 2, "prompt/kitchen")
        assert await answers(client, 2) == ids


async def test_who_requires_a_client_takes_none_of_the_anonymous(
    broker: Broker, client: BusClient, version: str
) -> None:
    taker = Answering()
    async with node(broker, "attic", version, taker, require_client=True) as attic:
        await join(attic)
        await ask(client, "anonymous", 2)
        named = await ask(client, "named", 2, "prompt/kitchen")
        await until(lambda: len(taker.ids) >= 2)
        assert taker.ids == named


async def test_who_leaves_gets_none_and_the_others_all(
    broker: Broker, client: BusClient, version: str
) -> None:
    takers = Answering(), Answering()
    async with (
        node(broker, "attic", version, takers[0]) as attic,
        node(broker, "cellar", version, takers[1]) as cellar,
    ):
        await join(attic)
        await join(cellar)
        await leave(attic)
        ids = await ask(client, "left", 10)
        await until(lambda: len(takers[1].ids) == 10)
        assert (takers[0].ids, takers[1].ids) == ([], ids)


async def test_who_returns_gets_some_again(broker: Broker, client: BusClient, version: str) -> None:
    takers = Answering(), Answering()
    async with (
        node(broker, "attic", version, takers[0]) as attic,
        node(broker, "cellar", version, takers[1]) as cellar,
    ):
        await join(cellar)
        await join(attic)
        await leave(attic)
        await join(attic)
        await ask(client, "back", 10)
        await until(lambda: len(takers[0].ids) + len(takers[1].ids) == 10)
        assert takers[0].ids


async def test_no_prompt_is_swallowed_by_who_leaves_in_the_middle(
    broker: Broker, client: BusClient, version: str
) -> None:
    # More than the broker sends unacknowledged: some wait there for the member that leaves.
    takers = Answering(acknowledge_s=0.3), Answering()
    async with (
        node(broker, "attic", version, takers[0]) as attic,
        node(broker, "cellar", version, takers[1]) as cellar,
    ):
        await join(attic)
        await join(cellar)
        ids = await ask(client, "middle", 100)
        await leave(attic)
        await until(lambda: len(takers[0].ids) + len(takers[1].ids) >= 100)
        assert sorted(takers[0].ids + takers[1].ids) == sorted(ids)
        assert takers[0].ids


async def test_a_node_that_has_gone_is_no_member_for_whom_prompts_are_kept(
    broker: Broker, client: BusClient, version: str
) -> None:
    taker = Answering()
    async with node(broker, "attic", version, Answering()) as attic:
        await join(attic)
    async with node(broker, "cellar", version, taker) as cellar:
        await join(cellar)
        ids = await ask(client, "gone", 10)
        await until(lambda: len(taker.ids) == 10)
        assert taker.ids == ids


async def test_a_goodbye_leaves_the_pools_first(
    broker: Broker, client: BusClient, version: str
) -> None:
    async with node(broker, "attic", version, Answering()) as attic:
        await join(attic)
        await attic.say_goodbye()
        assert not is_member(attic)


async def test_without_a_connection_of_its_own_a_node_takes_nothing_of_its_pools(
    broker: Broker, version: str
) -> None:
    async with node(broker, "attic", version, Answering()) as attic:
        attic._connection.is_connected = False
        attic.serve_pools(True)
        await asyncio.sleep(0.3)
        assert not is_member(attic)
