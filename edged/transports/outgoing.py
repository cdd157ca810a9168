"""What is on its way to the broker: kept until it is acknowledged, or dropped when it cannot go."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.minute_log import MinuteLog
from edged.transports.properties import PublishProperties

log = logging.getLogger(__name__)

WINDOW = 20
"""Messages that paho is given at a time: what it, and Mosquitto, call in flight."""
MAX_UNACKNOWLEDGED = 256
"""With more of ours than this on their way, nothing that comes is acknowledged."""
LOSSES = 3
"""Connections that may end while a message is the oldest that the broker has not acknowledged.

Some brokers hang up on who publishes where it may not: one such message must not keep the node
from all others for ever.
"""
HELD_S = 60.0
"""How long such a message waits, at first, before it is tried again."""
HELD_MAX_S = 3600.0
MAX_HELD = 64
MAX_KEPT = 16 * MAX_UNACKNOWLEDGED
"""With more than this, what nobody counts on (refusals, mostly) is dropped.

Only a broker that goes on without waiting for our acknowledgements lets it come to that. Answers
are never dropped: the spool does not hand out so many at a time.
"""
MAX_UNSENT_BYTES = 1024 * 1024
"""Of QoS 0 messages that wait for a socket that does not take them."""
MOST_HEAD_BYTES = 9
"""Of a PUBLISH: its kind, its length, the topic's length and the packet id."""
PACKET_BYTES = 256
"""About what a message holds in memory beside its topic and payload."""


@dataclass(frozen=True)
class Publish:
    """What a transport sends; properties travel in MQTT 5 only."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    correlation: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None


@dataclass
class _Kept:
    message: Publish
    delivered: Callable[[], None] | None
    losses: int = 0
    due_s: float = 0.0


@dataclass(frozen=True)
class _Sent:
    kept: _Kept
    info: paho.MQTTMessageInfo

    @property
    def is_acknowledged(self) -> bool:
        # Asked for one that found the socket closed, and was sent later, paho raises.
        self.info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        return self.info.is_published()


class Outgoing:
    """Messages of QoS 1 until the broker has them, those of QoS 0 until the socket has.

    paho sends again by itself what it was given and the broker has not acknowledged, with its
    packet id. It is given few at a time: it would send all of them at once then, and lose those
    whose packet id is in use after 65,535 others.
    """

    def __init__(self) -> None:
        self._client: paho.Client | None = None  # while there is a connection
        self._holder: paho.Client | None = None  # of what was sent and not acknowledged
        self._sends_again = False  # what it holds, over the connection that there is
        self._window = WINDOW
        self._maximum_packet_bytes: int | None = None
        self._waiting: deque[_Kept] = deque()
        self._held: deque[_Kept] = deque()
        self._sent: dict[int, _Sent] = {}
        self._unsent_bytes: dict[int, int] = {}
        self._unsent_total_bytes = 0
        self._refusals = MinuteLog(log, "the broker refused %d messages of ours; the last, on %s")
        self._overflows = MinuteLog(
            log, "dropped %d messages that the broker left waiting; the last, on %s"
        )
        self._excesses = MinuteLog(
            log, "left out %d messages that the broker cannot take; the last: %s"
        )
        self.dropped = 0
        """QoS 0 messages that the socket did not take."""
        self.relieved: list[Callable[[], None]] = []
        """Called when there is room again."""
        self.left_out: list[Callable[[Publish, str], None]] = []
        """Told of a message that is larger than the broker takes, and of both sizes."""
        self.all_acknowledged = asyncio.Event()
        self.all_acknowledged.set()

    def __len__(self) -> int:
        """How many messages the broker has not acknowledged."""
        return len(self._waiting) + len(self._sent)

    @property
    def is_waiting(self) -> bool:
        """Whether something cannot go before the broker has acknowledged others."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing should come in that makes more."""
        return len(self) > MAX_UNACKNOWLEDGED

    def accepted(self, client: paho.Client) -> None:
        """The broker has taken us: what it has not acknowledged is about to be sent again."""
        self._sends_again = client is self._holder

    def connected(
        self, client: paho.Client, receive_maximum: int, maximum_packet_bytes: int | None = None
    ) -> None:
        """Send what has waited, and from now on at once."""
        if client is not self._holder:
            # Another version of the protocol: what the former client was given is sent anew.
            self._waiting.extendleft(sent.kept for sent in reversed(self._sent.values()))
            self._sent.clear()
        self._client = self._holder = client
        self._sends_again = True
        self._window = min(WINDOW, receive_maximum)
        self._maximum_packet_bytes = maximum_packet_bytes
        self._unsent_bytes.clear()
        self._unsent_total_bytes = 0
        self._send_waiting()
        self._tell_whether_all()

    def disconnected(self) -> None:
        """Keep QoS 1 messages from now on; hold the one back that connections end with."""
        self._client = None
        # Also of one that ended before anything new was sent over it.
        is_loss, self._sends_again = self._sends_again, False
        client, oldest = self._holder, next(iter(self._sent), None)
        if oldest is None or client is None or not is_loss:
            return
        kept = self._sent[oldest].kept
        kept.losses += 1
        if kept.losses < LOSSES:
            return
        del self._sent[oldest]
        client._out_messages.pop(oldest, None)  # noqa: SLF001 (paho has no other way)
        wait_s = min(HELD_MAX_S, HELD_S * 2 ** (kept.losses - LOSSES))
        kept.due_s = time.monotonic() + wait_s
        self._held.append(kept)
        log.error(
            "%d connections ended while a message on %s was being sent; it is tried again in "
            "%.0f s. Does the broker let this node write there?",
            *(kept.losses, kept.message.topic, wait_s),
        )
        if len(self._held) > MAX_HELD:
            given_up = self._held.popleft()
            log.error("gave up a message on %s: too many such wait", given_up.message.topic)
            if given_up.delivered is not None:
                given_up.delivered()  # else nothing could take its place among those on their way
        self._tell_whether_all()

    def publish(self, message: Publish, delivered: Callable[[], None] | None = None) -> None:
        """Send or keep a message; never blocks, never raises.

        ``delivered`` is called once the broker has acknowledged it, so never with QoS 0. Without
        it, and retain, a message is one that nobody counts on.
        """
        if message.qos == 0:
            self._pass_on(message)
            return
        if delivered is None and not message.retain and len(self) >= MAX_KEPT:
            self._overflows.count(message.topic)
            return
        if message.retain:
            self._forget_former(message.topic)
        self._waiting.append(_Kept(message, delivered))
        self._send_waiting()
        self._tell_whether_all()

    def written(self, packet_id: int, reason: ReasonCode) -> None:
        """The socket took a QoS 0 message, or the broker acknowledged another one.

        Which of them, paho does not tell, and both may have the same packet id: so
        ``settle`` finds out what was acknowledged.
        """
        self._unsent_total_bytes -= self._unsent_bytes.pop(packet_id, 0)
        if reason.is_failure and packet_id in self._sent:
            topic = self._sent[packet_id].kept.message.topic
            self._refusals.count(f"{topic}: {reason}")

    def settle(self) -> None:
        """Take note of what the broker has acknowledged; to be called after every read."""
        acknowledged = [each for each, sent in self._sent.items() if sent.is_acknowledged]
        if not acknowledged:
            if self._held:  # which on a quiet node nothing else would try again
                self._send_waiting()
            return
        was_full = self.is_full
        kept = [self._sent.pop(packet_id).kept for packet_id in acknowledged]
        self._send_waiting()
        self._tell_whether_all()
        for each in kept:
            try:
                if each.delivered is not None:
                    each.delivered()
            except Exception:
                # The connection must not end for it, nor the others remain unheard of.
                log.exception("what a delivery should have set off has failed")
        if was_full and not self.is_full:
            for relieve in self.relieved:
                relieve()

    def _send_waiting(self) -> None:
        for kept in [each for each in self._held if each.due_s <= time.monotonic()]:
            self._held.remove(kept)
            self._waiting.append(kept)
        while self._client is not None and self._waiting and len(self._sent) < self._window:
            kept = self._waiting.popleft()
            info = self._hand_over(self._client, kept.message)
            if info is not None:
                self._sent[info.mid] = _Sent(kept, info)
            elif kept.delivered is not None:
                kept.delivered()  # as far as it ever can be

    def _forget_former(self, topic: str) -> None:
        """Of what is retained the last counts: one that was held back must not come after it."""
        for queue in (self._waiting, self._held):
            former = [kept for kept in queue if kept.message.retain and kept.message.topic == topic]
            for kept in former:
                queue.remove(kept)

    def _tell_whether_all(self) -> None:
        if len(self):
            self.all_acknowledged.clear()
        else:
            self.all_acknowledged.set()

    def _pass_on(self, message: Publish) -> None:
        if self._client is None:
            return
        size_bytes = PACKET_BYTES + len(message.topic) + len(message.payload)
        if self._unsent_total_bytes + size_bytes > MAX_UNSENT_BYTES:
            self.dropped += 1
            return
        info = self._hand_over(self._client, message)
        if info is not None:
            self._unsent_bytes[info.mid] = size_bytes
            self._unsent_total_bytes += size_bytes

    def _hand_over(self, client: paho.Client, message: Publish) -> paho.MQTTMessageInfo | None:
        """Give a message to paho; ``None`` for what cannot be put on the wire."""
        properties = _properties(message) if client.protocol is MQTTProtocolVersion.MQTTv5 else None
        stands_in = cast("Properties | None", properties)
        while True:
            try:
                if properties is not None and self._is_too_large(message, properties):
                    return None
                info = client.publish(
                    message.topic, message.payload, message.qos, message.retain, stands_in
                )
            except ValueError:
                log.exception("cannot publish to %s", message.topic)
                return None
            # The packet ids have come round to one that the broker has not acknowledged yet.
            if info.rc is not MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                return info

    def _is_too_large(self, message: Publish, properties: PublishProperties) -> bool:
        """Whether the broker would end the connection for it, again and again."""
        limit_bytes = self._maximum_packet_bytes
        if limit_bytes is None:
            return False
        size_bytes = MOST_HEAD_BYTES + len(message.topic.encode()) + len(message.payload)
        if size_bytes + len(properties.pack()) <= limit_bytes:
            return False
        what = f"{len(message.payload)} bytes, in packets of up to {limit_bytes}"
        self._excesses.count(f"{what}, on {message.topic}")
        for tell in self.left_out:
            tell(message, what)
        return True


def _properties(message: Publish) -> PublishProperties:
    return PublishProperties(message.correlation, message.user_properties, message.expiry_s)
