"""Finding a broker that takes us: one address after the other, MQTT 5 before 3.1.1."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.errors import BrokerError
from edged.settings import BrokerAddress, MqttSettings
from edged.transports.decode import PARSED_FACTOR
from edged.transports.outgoing import Publish
from edged.transports.paho_loop import hang_up
from edged.transports.security import (
    ConnectFailure,
    LastError,
    configure,
    explain,
    explain_alert,
    explain_silence,
)

log = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 32
CONNECT_TIMEOUT_S = 10.0
V5_TIMEOUT_S = 4.0
"""When another version is still to be tried: some brokers never answer an MQTT 5 greeting."""

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
_UNSUPPORTED_VERSION = 132  # MQTT 5's reason code; 3.1.1's return code 1 reads the same in paho
_UNLIMITED = 65_535  # MQTT 5's Receive Maximum of who names none


@dataclass(frozen=True)
class Session:
    """What a broker is told of us. It keeps the session of who ``stays`` while we are away."""

    client_id: str
    will: Publish | None = None
    stays: bool = True


class DiallingListener(Protocol):
    """Whoever wants the connection."""

    def prepare(self, client: paho.Client) -> None:
        """Set the callbacks of a new client, but ``on_connect``."""

    def accepted(self) -> None:
        """The broker has taken us; what it has for us may follow in the same packet."""


class _VersionRefused(ConnectFailure):
    """The broker says that it does not speak the version that was tried."""


class _NoAnswer(ConnectFailure):
    """Something listens, but does not answer in the version that was tried."""


class Dialler:
    """The client that has worked last, and how to connect it, or another, again."""

    def __init__(self, settings: MqttSettings, session: Session) -> None:
        self._settings = settings
        self._session = session
        self._versions: dict[BrokerAddress, MQTTProtocolVersion] = {}  # that they have spoken
        self._listener: DiallingListener | None = None
        self._connack: asyncio.Future[ReasonCode] | None = None
        self._ended: asyncio.Future[str] | None = None
        self.client: paho.Client | None = None
        """The one that a broker has accepted last."""
        self.address = settings.brokers[0]
        self.receive_maximum = _UNLIMITED
        """How many QoS 1 messages at a time the broker takes."""
        self.maximum_packet_bytes: int | None = None
        """What is larger, the broker ends the connection for (MQTT 5)."""

    @property
    def version(self) -> MQTTProtocolVersion:
        """What is spoken, or will be tried first."""
        if self.client is not None:
            return self.client.protocol
        return V311 if self._settings.protocol == "3.1.1" else V5

    async def dial(self, listener: DiallingListener) -> None:
        """Connect to the first broker that takes us. Raises ``BrokerError`` that names each."""
        self._listener = listener
        failures: list[ConnectFailure] = []
        for address in self._settings.brokers:
            try:
                return await self._negotiate(address)
            except ConnectFailure as failure:
                failures.append(failure)
        facts = ", ".join(failure.fact for failure in failures)
        remedies = "; ".join(dict.fromkeys(failure.remedy for failure in failures))
        raise BrokerError(f"{facts}; {remedies}")

    async def ended(self, within_s: float) -> str | None:
        """Why the connection has ended; ``None`` if it lasts."""
        assert self._ended is not None
        await asyncio.wait((self._ended,), timeout=within_s)
        return self._ended.result() if self._ended.done() else None

    def end(self, reason: str) -> None:
        """The connection, or the attempt at one, is over."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    async def _negotiate(self, address: BrokerAddress) -> None:
        if self._settings.protocol != "auto":
            version = V311 if self._settings.protocol == "3.1.1" else V5
            await self._attempt(address, version, CONNECT_TIMEOUT_S)
            return
        # What worked comes first: its client keeps what the broker has not acknowledged.
        spoken = self._versions.get(address)
        version = spoken or V5
        other = V311 if version is V5 else V5
        try:
            await self._attempt(address, version, V5_TIMEOUT_S)
        except (_VersionRefused, _NoAnswer) as refusal:
            if spoken is not None and isinstance(refusal, _NoAnswer):
                raise  # it has spoken this version before, and is only starting or stopping
            log.info("%s; trying MQTT %s", refusal.fact, spelled(other))
            is_sure = isinstance(refusal, _VersionRefused)
        else:
            return
        await self._attempt(address, other, CONNECT_TIMEOUT_S)
        if not is_sure:  # it may have been slow, so the next connection begins with 5 again
            del self._versions[address]

    async def _attempt(
        self, address: BrokerAddress, version: MQTTProtocolVersion, timeout_s: float
    ) -> None:
        client = self.client
        if client is None or version is not client.protocol:
            client = self._make_client(version)
        loop = asyncio.get_running_loop()
        self._connack, self._ended = loop.create_future(), loop.create_future()
        client.on_log = last_error = LastError()
        # Looking a name up and connecting block. Waited for without a limit of ours: a thread
        # left behind would connect later, in between the attempts that follow.
        opening = loop.run_in_executor(None, self._open, client, address)
        try:
            await asyncio.shield(opening)
            answer = await self._answer(client, address, timeout_s, last_error)
        except asyncio.CancelledError:
            opening.add_done_callback(lambda done: _let_go(client, done))
            raise
        except (OSError, ValueError, ConnectFailure) as error:
            # ValueError: what cannot be a host's name.
            remedy = "start one, or set mqtt.host and mqtt.port"
            raise explain(error, address, self._settings, remedy) from None
        finally:
            client.on_log = None  # paho spells out every packet for it
        if answer.value == _UNSUPPORTED_VERSION:
            raise _VersionRefused(
                f"{address} refuses MQTT {spelled(version)}", "set mqtt.protocol to what it speaks"
            )
        if answer.is_failure:
            raise ConnectFailure(
                f"{address} refused the connection: {answer}",
                "check mqtt.username and the password",
            )
        self.address = address
        self._versions[address] = version

    async def _answer(
        self,
        client: paho.Client,
        address: BrokerAddress,
        timeout_s: float,
        last_error: LastError,
    ) -> ReasonCode:
        assert self._connack is not None
        assert self._ended is not None
        await asyncio.wait(
            (self._connack, self._ended), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if self._connack.done():
            return self._connack.result()
        hint = explain_silence(self._settings)
        if not self._ended.done():
            hang_up(client)
            raise _NoAnswer(f"no answer from {address} within {timeout_s:g} s", hint)
        # A broker that knows only 3.1.1 may close instead of saying so.
        raise explain_alert(last_error.text, address) or _NoAnswer(
            f"{address} closed the connection during the handshake", hint
        )

    def _open(self, client: paho.Client, address: BrokerAddress) -> None:
        """In a thread of the executor."""
        settings, stays = self._settings, self._session.stays
        kwargs: dict[str, Any] = {}
        if client.protocol is V5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = settings.session_expiry_s if stays else 0
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = PARSED_FACTOR * settings.max_payload_bytes
            kwargs = {"clean_start": not stays, "properties": properties}
        client.connect(address.host, address.port, settings.keepalive_s, **kwargs)

    def _make_client(self, version: MQTTProtocolVersion) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._session.client_id,
            clean_session=None if version is V5 else not self._session.stays,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        configure(client, self._settings)
        if (will := self._session.will) is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        assert self._listener is not None
        self._listener.prepare(client)
        client.on_connect = self._on_connect
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if not reason.is_failure:
            # Here, since prompts that have waited may follow in the same packet.
            self.client = client
            self.receive_maximum = getattr(properties, "ReceiveMaximum", _UNLIMITED)
            self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", None)
            assert self._listener is not None
            self._listener.accepted()
        if self._connack is not None and not self._connack.done():
            self._connack.set_result(reason)


def _let_go(client: paho.Client, opening: "asyncio.Future[None]") -> None:
    """Close what a thread has opened that could not be stopped."""
    opening.exception()
    hang_up(client)


def spelled(version: MQTTProtocolVersion) -> str:
    """The version as people write it."""
    return "5" if version is V5 else "3.1.1"
