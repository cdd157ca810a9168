"""A connection to the broker that comes back: paho-mqtt's client inside asyncio.

MQTT 5 first, and 3.1.1 to a broker that refuses it. paho's own threads are not used: its
socket is watched by the event loop, so that a message costs no switch of threads.
"""

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.errors import BrokerError
from edged.settings import MqttSettings
from edged.transports.decode import PARSED_FACTOR, Incoming
from edged.transports.paho_loop import SocketWatcher, hang_up

log = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 32
CONNECT_TIMEOUT_S = 10.0
V5_TIMEOUT_S = 4.0
"""When another version is still to be tried: some brokers never answer an MQTT 5 greeting."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
PROVEN_S = 60.0
"""A shorter connection does not start the back-off anew: the broker may throw us out."""

_UNSUPPORTED_VERSION = 132  # MQTT 5's reason code; 3.1.1's return code 1 reads the same in paho


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
    """The broker says that it does not speak the version that was tried."""


class _NoAnswer(BrokerError):
    """Something listens, but does not answer in the version that was tried."""


class BrokerConnection:
    """One connection at a time, for as long as ``run`` runs."""

    def __init__(self, settings: MqttSettings, client_id: str, will: Publish) -> None:
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._listener: ConnectionListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watcher: SocketWatcher | None = None
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
        self._watcher = SocketWatcher(self._end)
        backoff_s = BACKOFF_FIRST_S
        try:
            while True:
                connected_s: float | None = None
                try:
                    await self._connect()
                    connected_s = self._loop.time()
                    await self._stay()
                except BrokerError as error:
                    if connected_s is not None and self._loop.time() - connected_s > PROVEN_S:
                        backoff_s = BACKOFF_FIRST_S
                    pause_s = backoff_s * random.uniform(0.5, 1.5)
                    self._report(str(error), pause_s)
                    await asyncio.sleep(pause_s)
                    backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
        finally:
            if self._client is not None:
                hang_up(self._client)

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
            # What worked comes first: its client keeps what the broker has not acknowledged.
            other = MQTTProtocolVersion.MQTTv311 if self.speaks_v5 else MQTTProtocolVersion.MQTTv5
            try:
                return await self._attempt(self._version, V5_TIMEOUT_S)
            except (_VersionRefused, _NoAnswer) as refusal:
                if self._client is not None and isinstance(refusal, _NoAnswer):
                    raise  # it has spoken this version before, and is only starting or stopping
                log.info("%s; trying MQTT %s", refusal, _spelled(other))
                return await self._attempt(other, CONNECT_TIMEOUT_S)
        return await self._attempt(self._version, CONNECT_TIMEOUT_S)

    async def _attempt(self, version: MQTTProtocolVersion, timeout_s: float) -> None:
        assert self._loop is not None
        client = self._client
        if client is None or version is not self._version:
            client = self._make_client(version)
        self._connack = self._loop.create_future()
        self._ended = self._loop.create_future()
        where = f"{self._settings.host}:{self._settings.port}"
        try:
            # Looking a name up and connecting block. Waited for without a limit of ours: a thread
            # left behind would connect later, in between the attempts that follow.
            await self._loop.run_in_executor(None, self._open, client)
        except (OSError, ValueError) as error:  # ValueError: what cannot be a host's name
            reason = getattr(error, "strerror", None) or error
            raise BrokerError(
                f"no broker at {where} ({reason}); start one, or set mqtt.host and mqtt.port"
            ) from None
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait(
                    (self._connack, self._ended), return_when=asyncio.FIRST_COMPLETED
                )
        except TimeoutError:
            hang_up(client)
            raise _NoAnswer(
                f"no answer from {where} within {timeout_s:g} s; is that the MQTT port?"
            ) from None
        if not self._connack.done():
            # A broker that knows only 3.1.1 may close instead of saying so.
            raise _NoAnswer(f"{where} closed the connection during the handshake")
        answer = self._connack.result()
        if answer.value == _UNSUPPORTED_VERSION:
            raise _VersionRefused(f"{where} refuses MQTT {_spelled(version)}")
        if answer.is_failure:
            raise BrokerError(
                f"{where} refused the connection: {answer}; check mqtt.username and the password"
            )

    def _open(self, client: paho.Client) -> None:
        """In a thread of the executor."""
        settings = self._settings
        kwargs: dict[str, Any] = {}
        if client.protocol is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = settings.session_expiry_s
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = PARSED_FACTOR * settings.max_payload_bytes
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
            *(self._settings.host, self._settings.port, _spelled(self._version)),
        )
        self._listener.connected()
        try:
            while not self._ended.done():
                self._client.loop_misc()  # keep-alive
                await asyncio.wait((self._ended,), timeout=1.0)
        finally:
            self.is_connected = False
        raise BrokerError(f"the connection ended: {self._ended.result()}")

    def _make_client(self, version: MQTTProtocolVersion) -> paho.Client:
        kwargs: dict[str, Any] = {}
        if version is not MQTTProtocolVersion.MQTTv5:
            kwargs = {"clean_session": False}
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=version,
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
        client.on_subscribe = self._on_subscribe
        assert self._watcher is not None
        self._watcher.watch(client)
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        if client is not self._client and not reason.is_failure:
            # Here, since prompts that have waited may follow in the same packet.
            self._client, self._version = client, client.protocol
            self._unacknowledged.clear()
            self._all_acknowledged.set()
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

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: object,
    ) -> None:
        denied = [str(reason) for reason in reasons if reason.is_failure]
        if denied:
            self.problem = (
                f"the broker denies {len(denied)} of {len(reasons)} subscriptions ({denied[0]}); "
                "check what its access control lets this node read"
            )
            log.error("%s", self.problem)

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

    def _report(self, problem: str, pause_s: float) -> None:
        if problem != self.problem:
            log.warning("%s; trying again in %.1f s", problem, pause_s)
        self.problem = problem


def _spelled(version: MQTTProtocolVersion) -> str:
    return "5" if version is MQTTProtocolVersion.MQTTv5 else "3.1.1"
