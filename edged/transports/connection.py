"""A connection to the broker that comes back: paho-mqtt's client inside asyncio.

paho's own threads are not used: its socket is watched by the event loop, so that a message costs
no switch of threads.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edged.errors import BrokerError
from edged.minute_log import MinuteLog
from edged.settings import MqttSettings
from edged.transports.acknowledgements import Acknowledgements, Token
from edged.transports.body import short
from edged.transports.decode import PARSED_FACTOR, Incoming
from edged.transports.dialling import V5, Dialler, Session, spelled
from edged.transports.outgoing import Outgoing, Publish
from edged.transports.paho_loop import UNREADABLE, Excess, SocketWatcher, hang_up

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
PROVEN_S = 60.0
"""A shorter connection does not start the back-off anew: the broker may throw us out."""
PACKET_IDS = 65_535
"""A broker with more messages that are not acknowledged does not wait for us at all.

Our Receive Maximum is far lower, but Mosquitto 2.0.11 does not keep to it once some connections
have been lost: all that has waited there comes at once (1,430 messages seen).
"""
QUIET_S = 0.25
"""A broker that has something for us sends it within this time, unless the network is worse."""


class ConnectionListener(Protocol):
    """Whoever uses the connection."""

    def connected(self) -> None:
        """A new connection serves; the broker may have forgotten everything."""

    def received(self, incoming: Incoming, acknowledge: Callable[[], None]) -> None:
        """A message has come; ``acknowledge`` is to be called when the broker may forget it."""


class BrokerConnection:
    """One connection at a time, for as long as ``run`` runs.

    What comes in is not acknowledged while too much of what it causes waits to go out, by this
    connection or by that of ``replies``.
    """

    def __init__(
        self, settings: MqttSettings, session: Session, replies: Outgoing | None = None
    ) -> None:
        self._settings = settings
        self._dialler = Dialler(settings, session)
        self._listener: ConnectionListener | None = None
        self._watcher: SocketWatcher | None = None
        self._incoming = Acknowledgements()
        self._unsubscribed = asyncio.Event()
        self._stirred = asyncio.Event()
        self._ignored = MinuteLog(
            log,
            "ignored %d messages that came with QoS 0, as too much waits to go out; the last: %s",
        )
        self.outgoing = Outgoing()
        self._replies = replies or self.outgoing
        self._replies.relieved.append(self._acknowledge)
        self.is_connected = False
        self.problem: str | None = None
        """Why there is no connection, in words for the operator."""

    @property
    def speaks_v5(self) -> bool:
        """Whether MQTT 5's properties reach the other side."""
        return self._dialler.version is V5

    async def run(self, listener: ConnectionListener) -> None:
        """Connect, stay connected, connect again; until cancelled."""
        self._listener = listener
        loop = asyncio.get_running_loop()
        self._watcher = SocketWatcher(
            *(self._end, self.outgoing.settle, self._settings.keepalive_s),
            PARSED_FACTOR * self._settings.max_payload_bytes,
        )
        backoff_s = BACKOFF_FIRST_S
        try:
            while True:
                connected_s: float | None = None
                try:
                    await self._dialler.dial(self)
                    connected_s = loop.time()
                    await self._stay()
                except BrokerError as error:
                    if connected_s is not None and loop.time() - connected_s > PROVEN_S:
                        backoff_s = BACKOFF_FIRST_S
                    pause_s = backoff_s * random.uniform(0.5, 1.5)
                    self._report(str(error), pause_s)
                    await asyncio.sleep(pause_s)
                    backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
        finally:
            self._end("it was no longer wanted")
            if self._dialler.client is not None:
                hang_up(self._dialler.client)

    def publish(self, message: Publish, delivered: Callable[[], None] | None = None) -> None:
        """Send, or keep for the next connection what has QoS 1; never blocks, never raises.

        ``delivered`` is called once the broker has acknowledged it.
        """
        self.outgoing.publish(message, delivered)

    def spare(self) -> None:
        """More comes than can be taken: read it in larger pieces for now.

        Not where the broker's acknowledgements are what is waited for.
        """
        if self._watcher is not None:
            self._watcher.rest(wanted=not self.outgoing.is_waiting)

    def look(self) -> None:
        """Read what has come meanwhile: there is time for it now."""
        if self._watcher is not None:
            self._watcher.look()

    def subscribe(self, topics: list[str]) -> None:
        """Listen to these topics with QoS 1."""
        if self._dialler.client is not None:
            self._dialler.client.subscribe([(topic, 1) for topic in topics])

    async def withdraw(self, topics: list[str], within_s: float) -> None:
        """Listen no more, and take what the broker had for us already."""
        client = self._dialler.client
        if client is None or not self.is_connected:
            return
        self._unsubscribed.clear()
        client.unsubscribe(topics)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._unsubscribed.wait()
                await self._until_quiet()

    async def _until_quiet(self) -> None:
        while True:
            # Each acknowledgement lets the broker send another one that has waited there.
            self._stirred.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._stirred.wait()
            except TimeoutError:
                if not self._incoming:
                    return

    async def flush(self, timeout_s: float) -> None:
        """Wait until the broker has acknowledged what was published with QoS 1."""
        if self.is_connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.outgoing.all_acknowledged.wait()

    async def _stay(self) -> None:
        """Until the connection ends, which raises ``BrokerError``."""
        client = self._dialler.client
        assert client is not None
        assert self._listener is not None
        reason = await self._dialler.ended(within_s=0)
        if reason is None:
            self.is_connected = True
            self.problem = None
            log.info(
                "connected to %s with MQTT %s",
                *(self._dialler.address, spelled(self._dialler.version)),
            )
            limits = self._dialler.receive_maximum, self._dialler.maximum_packet_bytes
            self.outgoing.connected(client, *limits)
            self._listener.connected()
            self._acknowledge()
        while reason is None:
            client.loop_misc()  # keep-alive
            reason = await self._dialler.ended(within_s=1.0)
        raise BrokerError(f"the connection ended: {reason}")

    def _end(self, reason: str) -> None:
        self.is_connected = False
        self.outgoing.disconnected()
        self._incoming.forget()
        self._dialler.end(reason)

    # From the dialler

    def prepare(self, client: paho.Client) -> None:
        """Set the callbacks of a new client."""
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = lambda *_: self._unsubscribed.set()
        assert self._watcher is not None
        self._watcher.watch(client)

    def accepted(self) -> None:
        """The broker has taken us; messages may follow at once."""
        self._incoming.forget()
        assert self._dialler.client is not None
        self.outgoing.accepted(self._dialler.client)

    # From paho

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
        packet_id: int,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        self.outgoing.written(packet_id, reason)

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _packet_id: int,
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

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        assert self._listener is not None
        self._stirred.set()
        acknowledge: Callable[[], None] = _nothing
        if message.qos:
            if len(self._incoming) >= PACKET_IDS:
                raise Excess(
                    f"the broker does not wait: {len(self._incoming)} messages are not acknowledged"
                )
            acknowledge = partial(self._finish, self._incoming.take(message.mid))
        properties = message.properties
        try:
            incoming = Incoming(
                topic=message.topic,
                payload=bytes(message.payload),
                retain=message.retain,
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
                expiry_s=getattr(properties, "MessageExpiryInterval", None),
                are_properties_readable=not hasattr(properties, UNREADABLE),
            )
        except UnicodeDecodeError:
            log.warning("ignored a message whose topic is not UTF-8")
            acknowledge()
            return
        if not message.qos and self._replies.is_full:
            # Nothing can hold these back: the broker does not wait to hear of them.
            self._ignored.count(f"{len(incoming.payload)} bytes on {short(incoming.topic)}")
            return
        try:
            self._listener.received(incoming, acknowledge)
        except Exception:
            # paho would swallow it or lose the connection; a defect must do neither. Nor must
            # the message come back for ever.
            log.exception("a message on %s could not be handled", short(incoming.topic))
            acknowledge()

    def _finish(self, token: Token) -> None:
        self._stirred.set()
        self._incoming.finish(token)
        self._acknowledge()

    def _acknowledge(self) -> None:
        client = self._dialler.client
        if client is not None and self.is_connected and not self._replies.is_full:
            for packet_id in self._incoming.due():
                client.ack(packet_id, 1)

    def _report(self, problem: str, pause_s: float) -> None:
        if problem != self.problem:
            log.warning("%s; trying again in %.1f s", problem, pause_s)
        self.problem = problem


def _nothing() -> None:
    pass
