"""A client's side of the bus, for the commands that talk to nodes."""

import contextlib
import json
import queue
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edged.errors import BrokerError, EdgedError
from edged.settings import BrokerAddress, MqttSettings
from edged.transports.paho_loop import send_at_once
from edged.transports.security import (
    LastError,
    configure,
    explain,
    explain_alert,
    explain_silence,
)
from edged.transports.topics import is_name

CONNECT_S = 5.0
FIND_S = 0.6
"""Retained messages come at once; a broker far away may need a little longer."""
FIND_MOST_S = 10.0
"""As long as a fleet goes on telling of itself."""
KINDS = ("status", "card", "state")
"""What a node retains of itself."""
START_ONE = "start one, or say where it is with EDGED_MQTT__HOST and EDGED_MQTT__PORT"


@dataclass(frozen=True)
class Message:
    """What arrived."""

    topic: str
    payload: bytes


INTERRUPTION = Message("", b"")


@dataclass
class Node:
    """What a node has said of itself, retained on the broker."""

    name: str
    status: str | None = None
    card: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def is_online(self) -> bool:
        return self.status == "online"


class Bus:
    """A connection for the time of one command."""

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._client: paho.Client | None = None

    def __enter__(self) -> Self:
        """Raises ``BrokerError`` when there is no broker, or all refuse us."""
        failures: list[BrokerError] = []
        for address in self._settings.brokers:
            try:
                self._greet(address)
            except BrokerError as failure:
                failures.append(failure)
            else:
                return self
        if len(failures) == 1:
            raise failures[0]
        raise BrokerError("; ".join(map(str, failures)))

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def _greet(self, address: BrokerAddress) -> None:
        """Raises ``BrokerError`` when this broker is not there, or refuses us."""
        versions = [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311]
        if self._settings.protocol != "auto":
            versions = versions[:1] if self._settings.protocol == "5" else versions[1:]
        for version in versions:
            reason = self._connect(address, version)
            if reason is not None and not reason.is_failure:
                return
            self.__exit__()
        fact = f"{address} refuses the connection: {reason or 'no answer'}"
        if reason is None and self._settings.tls:
            fact += f"; {explain_silence(self._settings)}"
        raise BrokerError(fact)

    def _connect(self, address: BrokerAddress, version: MQTTProtocolVersion) -> ReasonCode | None:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"edged-cli-{uuid.uuid4().hex[:12]}",
            protocol=version,
            reconnect_on_failure=False,
        )
        configure(client, self._settings)
        answers: queue.SimpleQueue[ReasonCode | None] = queue.SimpleQueue()
        client.on_connect = lambda _c, _u, _f, reason, _p: answers.put(reason)
        client.on_disconnect = lambda *_: answers.put(None)
        client.on_message = lambda _c, _u, message: self._inbox.put(
            Message(message.topic, bytes(message.payload))
        )
        client.on_socket_open = send_at_once
        client.on_log = last_error = LastError()
        try:
            client.connect(address.host, address.port)
        except (OSError, ValueError, BrokerError) as error:
            raise explain(error, address, self._settings, START_ONE) from None
        client.loop_start()
        self._client = client
        answer = None
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=CONNECT_S)
        client.on_log = None
        if answer is None and (alert := explain_alert(last_error.text, address)) is not None:
            self.__exit__()
            raise alert
        return answer

    def subscribe(self, topic: str, qos: int = 1) -> None:
        """Listen."""
        assert self._client is not None
        self._client.subscribe(topic, qos)

    def unsubscribe(self, topics: list[str]) -> None:
        """Listen no more."""
        assert self._client is not None
        self._client.unsubscribe(topics)

    def publish(self, topic: str, body: dict[str, Any]) -> None:
        """Publish JSON with QoS 1."""
        assert self._client is not None
        self._client.publish(topic, json.dumps(body, ensure_ascii=False).encode(), 1)

    def interrupt(self) -> None:
        """Let ``messages`` yield ``INTERRUPTION``; may be called in a signal handler."""
        self._inbox.put(INTERRUPTION)

    def messages(self, timeout_s: float) -> Iterator[Message]:
        """What arrives until ``timeout_s`` have passed without anything."""
        while True:
            try:
                yield self._inbox.get(timeout=timeout_s)
            except queue.Empty:
                return

    def listen_to_nodes(self, only: str | None = None) -> list[str]:
        """To what all say of themselves, or the one of that name; returns what to unsubscribe."""
        which = only if only is not None and is_name(only) else "+"
        topics = [f"{self._settings.topic_root}/{which}/{kind}" for kind in KINDS]
        for topic in topics:
            # With QoS 1 Mosquitto keeps a thousand for who is still reading, and drops the others.
            self.subscribe(topic, qos=0)
        return topics

    def retained(self, wait_s: float = FIND_S) -> Iterator[Message]:
        """What arrives until nothing is heard from a new topic any more."""
        heard: set[str] = set()
        now_s = time.monotonic()
        until_s, most_s = now_s + wait_s, now_s + FIND_MOST_S
        while (left_s := min(until_s, most_s) - time.monotonic()) > 0:
            try:
                message = self._inbox.get(timeout=left_s)
            except queue.Empty:
                return
            if message.topic not in heard:
                heard.add(message.topic)
                until_s = time.monotonic() + wait_s
            yield message

    def nodes(self, only: str | None = None, *, wait_s: float = FIND_S) -> dict[str, Node]:
        """The nodes that this broker knows, online or not, by name; or the one of that name."""
        topics = self.listen_to_nodes(only)
        nodes: dict[str, Node] = {}
        for message in self.retained(wait_s):
            _take(nodes, self._settings.topic_root, message)
        # Else every node's state would count as a sign of life of the one that is asked.
        self.unsubscribe(topics)
        return dict(sorted(nodes.items()))


def _take(nodes: dict[str, Node], root: str, message: Message) -> None:
    name, _, kind = message.topic.removeprefix(f"{root}/").partition("/")
    if not is_name(name) or not message.payload:
        return
    node = nodes.setdefault(name, Node(name))
    text = message.payload.decode(errors="replace")
    if kind == "status":
        node.status = text
        return
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(text)
        if kind in ("card", "state") and isinstance(body, dict):
            setattr(node, kind, body)


def choose_node(nodes: dict[str, Node], wanted: str | None) -> Node:
    """The node that was asked for, or the only one online. Raises ``EdgedError`` that helps."""
    if wanted is not None:
        if wanted not in nodes:
            known = ", ".join(nodes) or "none"
            raise EdgedError(f"there is no node {wanted} on this broker (known: {known})")
        if not nodes[wanted].is_online:
            raise EdgedError(f"the node {wanted} is offline")
        return nodes[wanted]
    online = [node for node in nodes.values() if node.is_online]
    if len(online) == 1:
        return online[0]
    if online:
        names = ", ".join(node.name for node in online)
        raise EdgedError(f"several nodes are online: {names}; choose one with --node")
    if nodes:
        raise EdgedError(f"no node is online; known and offline: {', '.join(nodes)}")
    raise EdgedError("there is no node on this broker; start one with: edged run")
