"""Prompts in and replies out over MQTT; the wire protocol is docs/wire-protocol.md."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from edged.errors import InvalidRequest, PromptFailure, ReplyTopicForbidden
from edged.messages import Delta, Failed, Origin, Prompt, Reply, Send
from edged.minute_log import MinuteLog
from edged.settings import Settings
from edged.transports.address import Address
from edged.transports.body import parse_json_object, short
from edged.transports.connection import BrokerConnection
from edged.transports.decode import Incoming, decode_prompt
from edged.transports.dialling import Session
from edged.transports.encode import encode_plain, encode_reply, reply_qos, user_properties
from edged.transports.identity import client_id
from edged.transports.outgoing import Publish
from edged.transports.pool import PoolMembership
from edged.transports.topics import ANONYMOUS, Topics, is_name

log = logging.getLogger(__name__)

GOODBYE_S = 2.0
MAX_SHOWN_TOPIC = 256
TOO_MUCH = 429
"""The status of ``queue_full`` and ``client_quota``."""
WATCHED_EXPIRY_S = 60
"""What is only to be watched is of no use to who comes back later."""


class PromptTaker(Protocol):
    """Whoever answers prompts: the pipeline."""

    def submit(self, prompt: Prompt, origin: Origin) -> None: ...
    def cancel(self, client: str, prompt_id: str) -> bool: ...


class MqttTransport:
    """One node on one broker."""

    def __init__(self, settings: Settings, taker: PromptTaker) -> None:
        self._settings = settings
        self._taker = taker
        self._topics = Topics(settings.mqtt.topic_root, settings.node, settings.mqtt.pools)
        self._retained: dict[str, Publish] = {}
        self._rejections = MinuteLog(log, "rejected %d messages; the last: %s")
        will = Publish(self._topics.status, b"offline", qos=1, retain=True)
        self._connection = BrokerConnection(settings.mqtt, Session(client_id(settings.node), will))
        self._connection.outgoing.left_out.append(self._tell_of_excess)
        self._pools = PoolMembership(settings, self._topics, self, self._connection.outgoing)

    @property
    def problem(self) -> str | None:
        """Why the broker cannot be reached, if it cannot."""
        return self._connection.problem or self._pools.problem

    def use(self, settings: Settings) -> None:
        """Decode with these from now on; ``mqtt`` is as it was."""
        self._settings = settings

    @property
    def dropped_deltas(self) -> int:
        """Messages only to be watched that were dropped, as the socket did not take them."""
        return self._connection.outgoing.dropped

    async def run(self) -> None:
        """Serve until cancelled."""
        await asyncio.gather(self._connection.run(self), self._pools.run())

    def serve_pools(self, can_serve: bool) -> None:
        """Take prompts of the pools from now on, or leave them to others."""
        self._pools.serve(can_serve and self._connection.is_connected)

    async def say_goodbye(self) -> None:
        """Tell everyone that the node is gone, and let the last replies out."""
        await self._pools.leave()
        self._connection.publish(Publish(self._topics.status, b"offline", qos=1, retain=True))
        await self._connection.flush(GOODBYE_S)

    def send_to(self, address: str) -> Send:
        """How to answer a prompt of before, from where its ``Origin`` said that it came."""
        try:
            return self._sender(Address.load(address))
        except ValueError as error:
            log.error("an address that was kept cannot be read: %s", error)  # noqa: TRY400 (no defect)
            return _send_nowhere

    def publish_card(self, card: dict[str, Any]) -> None:
        """Publish what the node is, if that has changed."""
        self._retain(self._topics.card, card, qos=1)

    def publish_state(self, state: dict[str, Any]) -> None:
        """Publish how the node is doing."""
        self._retain(self._topics.state, state, qos=0)

    def _retain(self, topic: str, body: dict[str, Any], qos: int) -> None:
        payload = json.dumps(body, ensure_ascii=False).encode()
        message = Publish(topic, payload, qos, retain=True)
        # While there is no connection, only the last one is kept, for the next.
        if self._connection.is_connected and (qos == 0 or self._retained.get(topic) != message):
            self._connection.publish(message)
        self._retained[topic] = message

    # From the connection

    def connected(self) -> None:
        """Subscribe, and say that we are here; the broker may have forgotten everything."""
        require_client = self._settings.mqtt.require_client
        self._connection.subscribe(self._topics.subscriptions(require_client=require_client))
        # First what we are: else the card and state of a daemon that died would be taken for ours.
        for message in self._retained.values():
            self._connection.publish(message)
        self._connection.publish(Publish(self._topics.status, b"online", qos=1, retain=True))

    def received(self, incoming: Incoming, acknowledge: Callable[[], None]) -> None:
        """A publish on one of our topics, or of a pool's."""
        kind_and_client = self._topics.parse(incoming.topic)
        if kind_and_client is None:
            acknowledge()
            return
        kind, client = kind_and_client
        if incoming.retain:
            self._reject(incoming, client, "retained messages are ignored; publish without retain")
        elif not incoming.are_properties_readable:
            self._reject(incoming, None, "its properties are none that MQTT 5 allows")
        elif client is not None and not is_name(client):
            self._reject(incoming, None, "the client level of the topic is no valid name")
        elif client is None and self._settings.mqtt.require_client:
            # The broker's session may still hold a subscription from before that was set.
            self._reject(incoming, None, "a client level is required (mqtt.require_client)")
        elif kind == "prompt":
            self._take_prompt(incoming, client or ANONYMOUS, acknowledge)
            return
        else:
            self._take_cancel(incoming, client or ANONYMOUS)
        acknowledge()

    def _take_prompt(
        self, incoming: Incoming, client: str, acknowledge: Callable[[], None]
    ) -> None:
        request = decode_prompt(incoming, client, self._topics, self._settings)
        address, outcome = request.address, request.outcome
        if isinstance(outcome, Prompt):
            self._taker.submit(outcome, Origin(self._sender(address), address.dump(), acknowledge))
            return
        if address.topic is not None:
            self._send(Reply(address.id, 0, 0, Failed.of(outcome)), address)
        if address.topic is None or not address.asked or isinstance(outcome, ReplyTopicForbidden):
            self._reject(incoming, client, outcome.error)
        acknowledge()

    def _take_cancel(self, incoming: Incoming, client: str) -> None:
        try:
            fields = parse_json_object(incoming.payload)
            if set(fields) != {"id"} or not isinstance(fields["id"], str):
                raise InvalidRequest('a cancel is {"id": "…"} and nothing else')
            if not self._taker.cancel(client, fields["id"]):
                raise InvalidRequest("there is nothing of that id to cancel for this client")
        except PromptFailure as failure:
            self._reject(incoming, client, failure.error)

    def _sender(self, address: Address) -> Send:
        has_had_text = False

        def send(reply: Reply, delivered: Callable[[], None] | None = None) -> None:
            nonlocal has_had_text
            has_had_text |= isinstance(reply.message, Delta)
            self._send(reply, address, delivered, whole=not has_had_text)

        return send

    def _send(
        self,
        reply: Reply,
        address: Address,
        delivered: Callable[[], None] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        assert address.topic is not None
        if address.plain and self._settings.mqtt.text_replies:
            payloads = encode_plain(reply, whole=whole)
        else:
            payloads = [encode_reply(reply, address.correlation_text)]
        qos = reply_qos(reply)
        counts_on_it = None if delivered is None else _nothing
        for number, payload in enumerate(payloads, 1):
            message = Publish(
                address.topic,
                payload,
                qos,
                correlation=address.correlation,
                user_properties=tuple(user_properties(reply)),
                expiry_s=None if qos else WATCHED_EXPIRY_S,
            )
            is_last = number == len(payloads)
            self._connection.publish(message, delivered if is_last else counts_on_it)

        if isinstance(reply.message, Failed) and reply.message.status == TOO_MUCH:
            # Answering a flood must take little from the engine, which needs the same processors.
            self._connection.spare()
        elif isinstance(reply.message, Delta):
            # A step has ended, and while tokens are chosen the engine leaves processors idle.
            self._connection.look()

    def _tell_of_excess(self, message: Publish, sizes: str) -> None:
        """An answer that the broker cannot take is not only logged."""
        if message.qos and not message.retain and message.topic != self._topics.rejected:
            reason = f"the reply is larger than the broker takes: {sizes}"
            self._publish_rejection(reason, message.topic, None, len(message.payload))

    def _reject(self, incoming: Incoming, client: str | None, reason: str) -> None:
        """Say on the node's own topic what could not be answered where it was asked."""
        # Cut, and in one line: it may be 64 KiB of anything.
        topic = short(incoming.topic, MAX_SHOWN_TOPIC)
        self._rejections.count(f"{len(incoming.payload)} bytes on {topic}: {reason}")
        self._publish_rejection(reason, topic, client, len(incoming.payload))

    def _publish_rejection(self, reason: str, topic: str, client: str | None, length: int) -> None:
        body = {"reason": reason, "topic": topic, "client": client, "length": length}
        payload = json.dumps(body, ensure_ascii=False).encode()
        self._connection.publish(Publish(self._topics.rejected, payload, qos=1))


def _nothing() -> None:
    pass


def _send_nowhere(
    reply: Reply,  # noqa: ARG001 (the protocol's name)
    delivered: Callable[[], None] | None = None,
) -> None:
    if delivered is not None:
        delivered()  # as far as it ever can be
