"""The clients of the storm: what docs/promises.md asks of a client, and nothing more.

Each has a session that the broker keeps. It publishes a prompt again, with the same id, while no
``accepted`` comes, when it was refused for the moment, and when nothing is heard for long.
"""

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.bus import ROOT
from benchmarks.chaos.prompts import Asked
from edged.transports.paho_loop import send_at_once

ACCEPTED_PATIENCE_S = 5.0
SILENCE_S = 25.0
"""A node gives a sign of life every 15 s, which a fault may swallow."""
REFUSED_PAUSE_S = 2.0
TICK_S = 0.1
SESSION_S = 86_400


@dataclass(frozen=True)
class Heard:
    """One message as it came, whatever it was."""

    client: str
    topic: str
    payload: bytes
    at_s: float


@dataclass
class Ask:
    """How far a client is with one prompt. Times are CLOCK_MONOTONIC."""

    prompt: Asked
    due_s: float
    first_s: float | None = None
    """When it was published for the first time."""
    last_s: float = 0.0
    publishes: int = 0
    heard_s: float = 0.0
    accepted_s: float | None = None
    ended_s: float | None = None
    refused_s: float | None = None
    """When it was refused, until it is asked again."""
    terminals: int = 0
    on_its_way: paho.MQTTMessageInfo | None = None

    def is_due(self, now_s: float) -> bool:
        """Whether the client should publish it now."""
        if self.ended_s is not None or now_s < self.due_s:
            return False
        if self.first_s is None:
            return True
        if self.on_its_way is not None and not _is_with_broker(self.on_its_way):
            return False  # it is sent with the next connection
        if self.refused_s is not None:
            return now_s - self.refused_s >= REFUSED_PAUSE_S
        if self.accepted_s is None:
            return now_s - self.last_s >= ACCEPTED_PATIENCE_S
        return now_s - max(self.last_s, self.heard_s) >= SILENCE_S


@dataclass
class _Bus:
    """One client's connection, which comes back by itself."""

    name: str
    client: paho.Client
    asks: dict[str, Ask] = field(default_factory=dict)


class Clients:
    """All clients; one thread decides what they publish, paho's threads hear."""

    def __init__(self, port: int, node: str, asks: Iterable[Ask]) -> None:
        self._port, self._node = port, node
        self.heard: list[Heard] = []
        self.asks = list(asks)
        self._changing = threading.Lock()
        self._buses: dict[str, _Bus] = {}
        for ask in self.asks:
            name = ask.prompt.client
            if name not in self._buses:
                self._buses[name] = _Bus(name, self._client(name))
            self._buses[name].asks[ask.prompt.id] = ask
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)

    def start(self) -> None:
        """Connect, and ask when prompts are due."""
        for bus in self._buses.values():
            bus.client.connect(
                "127.0.0.1", self._port, 30, clean_start=False, properties=_session()
            )
            bus.client.loop_start()
        self._thread.start()

    def close(self) -> None:
        """Leave the broker."""
        self._stopping.set()
        self._thread.join()
        for bus in self._buses.values():
            bus.client.disconnect()
            bus.client.loop_stop()

    @property
    def ended(self) -> int:
        """Prompts with a result."""
        return sum(ask.ended_s is not None for ask in self.asks)

    @property
    def open(self) -> int:
        """Prompts that were published and have no result."""
        return sum(ask.first_s is not None and ask.ended_s is None for ask in self.asks)

    def wait_for_all(self, patience_s: float) -> bool:
        """Until every prompt has a result."""
        until_s = time.monotonic() + patience_s
        while self.ended < len(self.asks) and time.monotonic() < until_s:
            time.sleep(TICK_S)
        return self.ended == len(self.asks)

    def ask_all_again(self, patience_s: float) -> int:
        """Everybody asks everything once more; returns how many were answered in time."""
        before = {ask.prompt.key: ask.terminals for ask in self.asks}
        for ask in self.asks:
            self._publish(ask)
        until_s = time.monotonic() + patience_s
        while True:
            answered = sum(ask.terminals > before[ask.prompt.key] for ask in self.asks)
            if answered == len(self.asks) or time.monotonic() > until_s:
                return answered
            time.sleep(TICK_S)

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S):
            now_s = time.monotonic()
            for ask in self.asks:
                if ask.is_due(now_s):
                    self._publish(ask)

    def _publish(self, ask: Ask) -> None:
        now_s = time.monotonic()
        with self._changing:
            ask.first_s = ask.first_s or now_s
            ask.last_s, ask.refused_s = now_s, None
            ask.publishes += 1
        client = self._buses[ask.prompt.client].client
        topic = f"{ROOT}/{self._node}/prompt/{ask.prompt.client}"
        ask.on_its_way = client.publish(topic, ask.prompt.payload, qos=1)

    def _client(self, name: str) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"chaos-{name}",
            protocol=MQTTProtocolVersion.MQTTv5,
            userdata=name,
        )
        client.reconnect_delay_set(0.2, 1.0)
        client.on_socket_open = send_at_once
        # Always: a broker that was killed may have forgotten.
        topic = f"{ROOT}/{self._node}/completion/{name}/+"
        client.on_connect = lambda connected, *_: connected.subscribe(topic, 1)
        client.on_message = self._on_message
        return client

    def _on_message(self, _client: paho.Client, name: str, message: paho.MQTTMessage) -> None:
        """In a thread of paho's."""
        now_s = time.monotonic()
        self.heard.append(Heard(name, message.topic, bytes(message.payload), now_s))
        ask = self._buses[name].asks.get(message.topic.rpartition("/")[2])
        if ask is None:
            return
        reply = json.loads(message.payload)
        with self._changing:
            ask.heard_s = now_s
            if is_refusal(reply):
                ask.refused_s = now_s
            elif reply["type"] in ("done", "failed"):
                ask.ended_s = ask.ended_s or now_s
                ask.terminals += 1
            elif reply["type"] == "accepted":
                ask.accepted_s = ask.accepted_s or now_s


def is_refusal(reply: dict[str, Any]) -> bool:
    """A ``failed`` that is no result: no ``accepted`` has gone before it."""
    return bool(reply["type"] == "failed" and reply["seq"] == 0)


def _session() -> Properties:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_S
    return properties


def _is_with_broker(info: paho.MQTTMessageInfo) -> bool:
    # Asked for one that found the socket closed, and was sent later, paho raises.
    info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
    return info.is_published()
