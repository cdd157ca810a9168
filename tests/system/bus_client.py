"""A client of the bus for the system tests; it knows nothing of edged but the wire protocol."""

import contextlib
import json
import queue
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 30.0
"""These machines have noisy minutes; nothing here is a measure of speed."""


@dataclass
class Got:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, str] = field(default_factory=dict)
    correlation: bytes | None = None

    @property
    def json(self) -> dict[str, Any]:
        body = json.loads(self.payload)
        assert isinstance(body, dict)
        return body


class BusClient:
    """Subscribes, publishes and waits."""

    def __init__(self, port: int, *, v5: bool = True, root: str = "edged/v1") -> None:
        self.root = root
        self.v5 = v5
        self.inbox: queue.Queue[Got] = queue.Queue()
        self._subscribed: queue.Queue[int] = queue.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"test-{uuid.uuid4().hex[:12]}",
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
        )
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.put(1)
        self._client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        properties = message.properties
        self.inbox.put(
            Got(
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                dict(getattr(properties, "UserProperty", [])),
                getattr(properties, "CorrelationData", None),
            )
        )

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, 1)
        self._subscribed.get(timeout=PATIENCE_S)

    def publish(
        self,
        topic: str,
        payload: bytes | str | dict[str, Any],
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        expiry_s: int | None = None,
        user_properties: list[tuple[str, str]] | None = None,
        qos: int = 1,
    ) -> None:
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        properties = None
        if self.v5:
            properties = Properties(PacketTypes.PUBLISH)
            if response_topic is not None:
                properties.ResponseTopic = response_topic
            if correlation is not None:
                properties.CorrelationData = correlation
            if expiry_s is not None:
                properties.MessageExpiryInterval = expiry_s
            if user_properties:
                properties.UserProperty = user_properties
        self._client.publish(topic, payload, qos, retain, properties).wait_for_publish(PATIENCE_S)

    def next(self, timeout_s: float = PATIENCE_S) -> Got:
        return self.inbox.get(timeout=timeout_s)

    def wait_for(
        self, wanted: Callable[[Got], bool], timeout_s: float = PATIENCE_S, what: str = "a message"
    ) -> Got:
        """The next message that is wanted; others are dropped."""
        until_s = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Empty):
            while (left_s := until_s - time.monotonic()) > 0:
                got = self.inbox.get(timeout=left_s)
                if wanted(got):
                    return got
        raise AssertionError(f"{what} did not come within {timeout_s:g} s")

    def send_prompt(self, node: str, client: str | None = None, **body: Any) -> str:
        """Listen for the replies, then publish; returns the id."""
        prompt_id = str(body.setdefault("id", uuid.uuid4().hex))
        self.subscribe(f"{self.root}/{node}/completion/{client or 'anonymous'}/{prompt_id}")
        level = f"/{client}" if client else ""
        self.publish(f"{self.root}/{node}/prompt{level}", body)
        return prompt_id

    def replies(self, prompt_id: str | None = None) -> Iterator[dict[str, Any]]:
        """The JSON replies of one prompt (or of any), up to the terminal one."""
        while True:
            got = self.wait_for(lambda got: "/completion/" in got.topic, what="a reply")
            reply = got.json
            if prompt_id is not None and reply["id"] != prompt_id:
                continue
            yield reply
            if reply["type"] in ("done", "failed"):
                return

    def ask(self, node: str, client: str | None = None, **body: Any) -> list[dict[str, Any]]:
        """One prompt and all its replies."""
        return list(self.replies(self.send_prompt(node, client, **body)))

    def nothing_more(self, quiet_s: float = 0.5) -> None:
        """Nothing comes for a while: the bus has gone quiet."""
        with contextlib.suppress(queue.Empty):
            got = self.inbox.get(timeout=quiet_s)
            raise AssertionError(f"unexpected: {got}")


def text_of(replies: list[dict[str, Any]]) -> str:
    """The deltas put together."""
    return "".join(reply["text"] for reply in replies if reply["type"] == "delta")
