"""A connection to the broker that comes back: paho-mqtt's client inside asyncio.

MQTT 5 first, and 3.1.1 to a broker that refuses it. paho's own threads are not used: its
socket is watched by the event loop, so that a message costs no switch of threads.
"""

import asyncio
import contextlib
import logging
import random
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.errors import BrokerError
from edged.settings import MqttSettings
from edged.transports.decode import Incoming

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # there for type checkers only

log = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 32
PACKET_SIZE_FACTOR = 4
"""A broker drops silently what exceeds the Maximum Packet Size, so it is far above our limit."""
CONNECT_TIMEOUT_S = 10.0
V5_TIMEOUT_S = 4.0
"""When another version is still to be tried: some brokers never answer an MQTT 5 greeting."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0

_UNSUPPORTED_VERSION = 132  # MQTT 5's reason code; 3.1.1's return code 1 reads the same in paho


def send_at_once(_client: paho.Client, _userdata: object, sock: "SocketLike") -> None:
    """Switch Nagle's algorithm off: small messages must not wait for each other (40 ms)."""
    if isinstance(sock, socket.socket):  # paho may wrap it for other transports than TCP
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@dataclass(frozen=True)
class Publish:
    """What a transport sends; properties travel in MQTT 5 only."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    correlation: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


class ConnectionListener(Protocol):
    """Whoever uses the connection."""

    def connected(self) -> None: ...
    def received(self, incoming: Incoming) -> None: ...


class _VersionRefused(BrokerError):
    """The broker refuses the version that was tried, or does not answer in it."""


class BrokerConnection:
    """One connection at a time, for as long as ``run`` runs."""

    def __init__(self, settings: MqttSettings, client_id: str, will: Publish) -> None:
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._listener: ConnectionListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._client: paho.Client | None = None
        self._version = (
            MQTTProtocolVersion.MQTTv311
            if settings.protocol == "3.1.1"
            else MQTTProtocolVersion.MQTTv5
        )
        self._connack: asyncio.Future[ReasonCode] | None = None
        self._ended: asyncio.Future[str] | None = None
        self._unacknowledged: set[int] = set()
        self._all_acknowledged = asyncio.Event()
        self.is_connected = False
        self.problem: str | None = None
        """Why there is no connection, in words for the operator."""

    @property
    def speaks_v5(self) -> bool:
        """Whether MQTT 5's properties reach the other side."""
        return self._version is MQTTProtocolVersion.MQTTv5

    async def run(self, listener: ConnectionListener) -> None:
        """Connect, stay connected, connect again; until cancelled."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        backoff_s = BACKOFF_FIRST_S
        try:
            while True:
                try:
                    await self._connect()
                    backoff_s = BACKOFF_FIRST_S
                    await self._stay()
                except BrokerError as error:
                    pause_s = backoff_s * random.uniform(0.5, 1.5)
                    self._report(str(error), pause_s)
                    await asyncio.sleep(pause_s)
                    backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
        finally:
            self._hang_up()

    def publish(self, message: Publish) -> None:
        """Send, or keep for the next connection what has QoS 1; never blocks, never raises."""
        client = self._client
        if client is None or (message.qos == 0 and not self.is_connected):
            return
        properties = None
        if self.speaks_v5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if message.correlation is not None:
                properties.CorrelationData = message.correlation
            if message.user_properties:
                properties.UserProperty = list(message.user_properties)
        try:
            sent = client.publish(
                message.topic, message.payload, message.qos, message.retain, properties
            )
            if message.qos:
                self._unacknowledged.add(sent.mid)
                self._all_acknowledged.clear()
        except ValueError:  # what paho refuses to put on the wire
            log.exception("cannot publish to %s", message.topic)

    def subscribe(self, topics: list[str]) -> None:
        """Listen to these topics with QoS 1."""
        if self._client is not None:
            self._client.subscribe([(topic, 1) for topic in topics])

    async def flush(self, timeout_s: float) -> None:
        """Wait until the broker has acknowledged what was published with QoS 1."""
        if self.is_connected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_acknowledged.wait(), timeout_s)

    async def _connect(self) -> None:
        """Raises ``BrokerError`` with the reason and a remedy."""
        if self._settings.protocol == "auto":
            try:
                return await self._attempt(MQTTProtocolVersion.MQTTv5, V5_TIMEOUT_S)
            except _VersionRefused as refusal:
                log.info("%s; trying MQTT 3.1.1", refusal)
                return await self._attempt(MQTTProtocolVersion.MQTTv311, CONNECT_TIMEOUT_S)
        return await self._attempt(self._version, CONNECT_TIMEOUT_S)

    async def _attempt(self, version: MQTTProtocolVersion, timeout_s: float) -> None:
        assert self._loop is not None
        if self._client is None or version is not self._version:
            self._version = version
            self._client = self._make_client()
        self._connack = self._loop.create_future()
        self._ended = self._loop.create_future()
        where = f"{self._settings.host}:{self._settings.port}"
        try:
            async with asyncio.timeout(timeout_s):
                # Looking a name up and connecting block.
                await self._loop.run_in_executor(None, self._open, self._client)
                await asyncio.wait(
                    (self._connack, self._ended), return_when=asyncio.FIRST_COMPLETED
                )
        except TimeoutError:
            self._hang_up()
            raise _VersionRefused(
                f"no answer from {where} within {timeout_s:g} s; is that the MQTT port?"
            ) from None
        except OSError as error:
            raise BrokerError(
                f"no broker at {where} ({error.strerror or error}); start one, or set mqtt.host "
                "and mqtt.port"
            ) from None
        if not self._connack.done():
            # A broker that knows only 3.1.1 may close instead of saying so.
            raise _VersionRefused(f"{where} closed the connection during the handshake")
        reason = self._connack.result()
        if reason.value == _UNSUPPORTED_VERSION:
            raise _VersionRefused(f"{where} refuses MQTT {self._settings.protocol}")
        if reason.is_failure:
            raise BrokerError(
                f"{where} refused the connection: {reason}; check mqtt.username and the password"
            )

    def _open(self, client: paho.Client) -> None:
        """In a thread of the executor."""
        settings = self._settings
        kwargs: dict[str, Any] = {}
        if self.speaks_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = settings.session_expiry_s
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = PACKET_SIZE_FACTOR * settings.max_payload_bytes
            kwargs = {"clean_start": False, "properties": properties}
        client.connect(settings.host, settings.port, settings.keepalive_s, **kwargs)

    async def _stay(self) -> None:
        """Until the connection ends, which raises ``BrokerError``."""
        assert self._ended is not None
        assert self._listener is not None
        assert self._client is not None
        self.is_connected = True
        self.problem = None
        log.info(
            "connected to %s:%d with MQTT %s",
            *(self._settings.host, self._settings.port, "5" if self.speaks_v5 else "3.1.1"),
        )
        self._listener.connected()
        try:
            while not self._ended.done():
                self._client.loop_misc()  # keep-alive
                await asyncio.wait((self._ended,), timeout=1.0)
        finally:
            self.is_connected = False
        raise BrokerError(f"the connection ended: {self._ended.result()}")

    def _make_client(self) -> paho.Client:
        self._unacknowledged.clear()
        self._all_acknowledged.set()
        kwargs: dict[str, Any] = {} if self.speaks_v5 else {"clean_session": False}
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._version,
            reconnect_on_failure=False,
            **kwargs,
        )
        if self._settings.username is not None:
            password = self._settings.password
            client.username_pw_set(
                self._settings.username, password.get_secret_value() if password else None
            )
        will = self._will
        client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        return client

    def _on_connect(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        if self._connack is not None and not self._connack.done():
            self._connack.set_result(reason)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        self._end(str(reason))

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        _reason: object,
        _properties: object,
    ) -> None:
        self._unacknowledged.discard(mid)
        if not self._unacknowledged:
            self._all_acknowledged.set()

    def _end(self, reason: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        assert self._listener is not None
        properties = message.properties
        try:
            incoming = Incoming(
                topic=message.topic,
                payload=bytes(message.payload),
                retain=message.retain,
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
                expiry_s=getattr(properties, "MessageExpiryInterval", None),
            )
        except UnicodeDecodeError:
            log.warning("ignored a message whose topic is not UTF-8")
            return
        try:
            self._listener.received(incoming)
        except Exception:
            # paho would swallow it or lose the connection; a defect must do neither.
            log.exception("a message on %s could not be handled", incoming.topic)

    # paho tells about its socket; some of it in the executor's thread, where it connects.

    def _on_socket_open(self, client: paho.Client, _data: object, sock: "SocketLike") -> None:
        assert self._loop is not None
        send_at_once(client, None, sock)
        self._loop.call_soon_threadsafe(self._loop.add_reader, sock, self._read, client)

    def _on_socket_close(self, _client: paho.Client, _data: object, sock: "SocketLike") -> None:
        assert self._loop is not None
        self._loop.remove_reader(sock)

    def _on_register_write(self, client: paho.Client, _data: object, sock: "SocketLike") -> None:
        assert self._loop is not None
        if threading.get_ident() == self._loop_thread:
            self._loop.add_writer(sock, self._write, client)
        else:
            self._loop.call_soon_threadsafe(self._add_writer_later, client, sock)

    def _add_writer_later(self, client: paho.Client, sock: "SocketLike") -> None:
        assert self._loop is not None
        if sock.fileno() >= 0 and client.want_write():
            self._loop.add_writer(sock, self._write, client)
        else:
            client.loop_write()  # paho believes that we watch; this takes that back

    def _on_unregister_write(self, _client: paho.Client, _data: object, sock: "SocketLike") -> None:
        assert self._loop is not None
        self._loop.remove_writer(sock)

    def _read(self, client: paho.Client) -> None:
        try:
            status = client.loop_read()
        except Exception as error:  # noqa: BLE001 (paho raises whatever a broken packet makes it)
            self._hang_up()
            self._end(f"what the broker sent cannot be read: {error!r}")
            return
        if status != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(paho.error_string(status))

    @staticmethod
    def _write(client: paho.Client) -> None:
        client.loop_write()

    def _hang_up(self) -> None:
        """Say goodbye if there is someone to say it to, and let go of the socket."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_write()
            self._client._sock_close()  # noqa: SLF001 (paho closes only once the broker answers)

    def _report(self, problem: str, pause_s: float) -> None:
        if problem != self.problem:
            log.warning("%s; trying again in %.1f s", problem, pause_s)
        self.problem = problem
