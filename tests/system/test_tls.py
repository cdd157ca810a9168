"""TLS, with a real Mosquitto and certificates of an authority of the tests' own."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bus_client import PATIENCE_S, BusClient
from certificates import Authority, Certificate, listener
from node import Broker, Node, running, wait_until_open
from scripted_broker import ACCEPTED_V5, broker, connected, publish, soon, until

from edged.cli import checks_bus
from edged.cli.bus import Bus
from edged.cli.local_broker import free_port
from edged.errors import BrokerError
from edged.settings import MqttSettings
from edged.transports.outgoing import Publish

RECORD_BYTES = 16 * 1024
"""The most that one record of TLS holds."""


@dataclass(frozen=True)
class Secure:
    """A broker with a port for TLS beside the plain one, and who has signed what."""

    broker: Broker
    port: int
    authority: Authority
    server: Certificate

    def settings(self, **more: object) -> MqttSettings:
        given = {"host": "127.0.0.1", "port": self.port, "ca_file": self.authority.ca_file}
        return MqttSettings.model_validate(given | more)


def secure(folder: Path, names: str, days: int = 30, extra: str = "") -> Secure:
    authority = Authority(folder)
    server = authority.issue("server", names, days)
    port = free_port()
    broker = Broker(folder, f"listener {port} 127.0.0.1\n{listener(server)}{extra}")
    broker.start()
    wait_until_open(port)
    return Secure(broker, port, authority, server)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    hub = secure(tmp_path_factory.mktemp("hub"), "IP:127.0.0.1")
    yield hub
    hub.broker.stop()


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    hub = secure(tmp_path_factory.mktemp("expired"), "IP:127.0.0.1", days=-1)
    yield hub
    hub.broker.stop()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A broker that wants a certificate of everybody, signed by its own authority."""
    folder = tmp_path_factory.mktemp("strict")
    extra = f"require_certificate true\ncafile {folder}/authority.pem\n"
    hub = secure(folder, "IP:127.0.0.1", extra=extra)
    yield hub
    hub.broker.stop()


async def problem(settings: MqttSettings) -> str:
    """What the daemon's connection says of it."""
    async with connected(settings) as (connection, _):
        await until(lambda: connection.problem)
        return str(connection.problem)


async def problem_of_command(settings: MqttSettings) -> str:
    """What a command says of it."""

    def enter() -> None:
        with Bus(settings):
            raise AssertionError("the broker has let it in")

    with pytest.raises(BrokerError) as caught:
        await asyncio.to_thread(enter)
    return str(caught.value)


BOTH = pytest.mark.parametrize("said", [problem, problem_of_command])


# Whom we trust


async def test_a_broker_that_the_authority_vouches_for_is_served(hub: Secure) -> None:
    async with connected(hub.settings()) as (_, listener):
        await soon(listener.times)


def test_a_command_reaches_it_too(hub: Secure) -> None:
    with Bus(hub.settings()) as bus:
        assert bus.nodes() == {}


def test_the_doctor_finds_it_well(hub: Secure) -> None:
    assert checks_bus.broker(hub.settings()).outcome == "ok"


def test_the_doctor_says_what_to_set_where_it_is_not_trusted(hub: Secure, strict: Secure) -> None:
    finding = checks_bus.broker(hub.settings(ca_file=strict.authority.ca_file))

    assert "is not accepted" in finding.found
    assert "mqtt.ca_file" in (finding.remedy or "")


@BOTH
async def test_a_broker_of_an_unknown_authority_is_not_trusted(
    hub: Secure, strict: Secure, said: object
) -> None:
    text = await said(hub.settings(ca_file=strict.authority.ca_file))  # type: ignore[operator]

    assert f"the certificate of 127.0.0.1:{hub.port} is not accepted" in text
    assert "mqtt.ca_file" in text


async def test_without_an_authority_only_those_of_the_system_are_trusted(hub: Secure) -> None:
    said = await problem(hub.settings(ca_file=None, tls=True))

    assert "set mqtt.ca_file" in said


@BOTH
async def test_an_expired_certificate_is_not_accepted(expired: Secure, said: object) -> None:
    text = await said(expired.settings())  # type: ignore[operator]

    assert "certificate has expired" in text
    assert "renew it" in text


@BOTH
async def test_a_certificate_for_another_name_is_not_accepted(hub: Secure, said: object) -> None:
    text = await said(hub.settings(host="localhost"))  # type: ignore[operator]

    assert "set mqtt.host to a name that the certificate carries" in text


async def test_who_does_not_verify_is_let_in_anywhere(expired: Secure) -> None:
    settings = expired.settings(host="localhost", ca_file=None, tls=True, tls_verify=False)

    async with connected(settings) as (_, listener):
        await soon(listener.times)


@BOTH
async def test_a_port_without_tls_is_told_as_that(hub: Secure, said: object) -> None:
    text = await said(hub.settings(port=hub.broker.port))  # type: ignore[operator]

    assert "does not answer in TLS" in text
    assert "mqtt.tls = false" in text


async def test_a_port_with_tls_is_told_as_that(hub: Secure) -> None:
    said = await problem(MqttSettings(host="127.0.0.1", port=hub.port))

    assert "closed the connection" in said
    assert "mqtt.tls" in said


# Who we are


async def test_our_certificate_opens_a_broker_that_wants_one(strict: Secure) -> None:
    ours = strict.authority.issue("attic")
    settings = strict.settings(cert_file=ours.cert_file, key_file=ours.key_file)

    async with connected(settings) as (_, listener):
        await soon(listener.times)


@BOTH
async def test_without_one_that_broker_refuses_us(strict: Secure, said: object) -> None:
    assert "mqtt.cert_file" in await said(strict.settings())  # type: ignore[operator]


async def test_one_of_another_authority_is_refused(strict: Secure, hub: Secure) -> None:
    theirs = hub.authority.issue("cellar")
    settings = strict.settings(cert_file=theirs.cert_file, key_file=theirs.key_file)

    assert "mqtt.cert_file" in await problem(settings)


async def test_the_files_are_read_again_before_each_connection(
    strict: Secure, hub: Secure, tmp_path: Path
) -> None:
    ours, stranger = strict.authority.issue("attic"), hub.authority.issue("attic")
    cert_file, key_file = tmp_path / "our.pem", tmp_path / "our.key"

    def install(certificate: Certificate) -> None:
        cert_file.write_bytes(certificate.cert_file.read_bytes())
        key_file.write_bytes(certificate.key_file.read_bytes())

    install(ours)
    async with connected(strict.settings(cert_file=cert_file, key_file=key_file)) as (
        connection,
        listener,
    ):
        await soon(listener.times)
        install(stranger)
        await asyncio.to_thread(strict.broker.stop)
        await asyncio.to_thread(strict.broker.start)
        await until(lambda: "mqtt.cert_file" in (connection.problem or ""))
        install(ours)
        await soon(listener.times)


# What goes through


async def test_messages_longer_than_a_record_arrive_whole_and_in_bursts(hub: Secure) -> None:
    payloads = [bytes([number]) * (number * RECORD_BYTES + number) for number in range(16)]
    with BusClient(hub.broker.port) as client:
        async with connected(hub.settings()) as (connection, listener):
            await soon(listener.times)
            connection.subscribe(["burst"])
            await asyncio.sleep(0.2)
            for _ in range(4):
                for payload in payloads:
                    await asyncio.to_thread(client.publish, "burst", payload, qos=0)
            got = [(await soon(listener.messages))[0].payload for _ in range(4 * len(payloads))]
            assert got == 4 * payloads


async def test_messages_that_share_a_record_are_all_read(hub: Secure) -> None:
    # Mosquitto gives each message a record of its own; other brokers do not.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(hub.server.cert_file, hub.server.key_file)
    texts = [b"%d" % number for number in range(100)]

    async def answer(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ACCEPTED_V5 + b"".join(publish("burst", text) for text in texts))
        await reader.read()

    async with (
        broker(answer, context, ca_file=hub.authority.ca_file) as settings,
        connected(settings) as (_, listener),
    ):
        got = [(await soon(listener.messages))[0].payload for _ in texts]
        assert got == texts


async def test_long_messages_of_ours_arrive(hub: Secure) -> None:
    payloads = [bytes([number]) * (40 * RECORD_BYTES) for number in range(30)]
    with BusClient(hub.broker.port) as client:
        await asyncio.to_thread(client.subscribe, "ours")
        async with connected(hub.settings()) as (connection, listener):
            await soon(listener.times)
            for payload in payloads:
                connection.publish(Publish("ours", payload, qos=1))
            got = [(await asyncio.to_thread(client.next)).payload for _ in payloads]
            assert got == payloads


async def test_the_connection_comes_back_when_the_broker_does(tmp_path: Path) -> None:
    hub = secure(tmp_path, "IP:127.0.0.1")
    try:
        async with connected(hub.settings()) as (connection, listener):
            await soon(listener.times)
            await asyncio.to_thread(hub.broker.stop)
            await until(lambda: not connection.is_connected)
            await asyncio.to_thread(hub.broker.start)
            await soon(listener.times)
    finally:
        hub.broker.stop()


async def test_a_connection_that_opens_after_it_was_no_longer_wanted_is_closed(
    hub: Secure,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(hub.server.cert_file, hub.server.key_file)
    arrived, wanted = threading.Event(), threading.Event()

    def serve(listening: socket.socket) -> bytes:
        sock, _ = listening.accept()
        arrived.set()
        wanted.wait(PATIENCE_S)
        with context.wrap_socket(sock, server_side=True) as secured:
            secured.settimeout(PATIENCE_S)
            return b"".join(iter(lambda: secured.recv(1024), b""))  # until it is closed

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(asyncio.to_thread(serve, listening))
        async with connected(hub.settings(port=listening.getsockname()[1])):
            await asyncio.to_thread(arrived.wait, PATIENCE_S)
        wanted.set()
        await serving


# A whole node


@pytest.fixture(scope="module")
def node(hub: Secure, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = {"mqtt__port": hub.port, "mqtt__ca_file": hub.authority.ca_file}
    folder = tmp_path_factory.mktemp("node")
    with running("safe", hub.broker.port, folder, engine__name="echo", **settings) as node:
        yield node


def test_a_node_answers_over_tls(hub: Secure, node: Node) -> None:
    with BusClient(hub.broker.port) as client:
        assert client.ask("safe", prompt="hi")[-1]["text"] == "hi"


def test_a_command_asks_over_tls(node: Node) -> None:
    run = node.command("ask", "hi")

    assert (run.returncode, run.stdout) == (0, "hi\n"), run.stderr


def test_a_node_that_does_not_trust_the_broker_says_so_in_its_log(
    hub: Secure, strict: Secure, tmp_path: Path
) -> None:
    settings = {"mqtt__port": hub.port, "mqtt__ca_file": strict.authority.ca_file}
    node = Node("wary", hub.broker.port, tmp_path, engine__name="echo", **settings)
    try:
        node.wait_for_log("is not accepted")
    finally:
        node.stop()
