"""One input: a publish with its properties, and the node that it comes to.

As a file it is a line of JSON, then the payload as it is, so that a find can be read and changed.
"""

import json
from dataclasses import dataclass
from typing import Any

from edged.transports.decode import Incoming

MAX_TOPIC_BYTES = 65_535
"""What MQTT has room for, also in its properties."""


@dataclass(frozen=True)
class Case:
    """``node`` is the name of one of ``nodes.NODES``; the rest is what the broker hands on."""

    node: str
    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    readable: bool = True
    """Whether paho could make sense of the properties."""

    @property
    def incoming(self) -> Incoming:
        """What the connection makes of it."""
        return Incoming(
            self.topic,
            self.payload,
            self.retain,
            self.response_topic,
            self.correlation,
            self.expiry_s,
            self.readable,
        )


def dump(case: Case) -> bytes:
    """The file of a case."""
    head: dict[str, Any] = {"node": case.node, "topic": case.topic}
    if case.retain:
        head["retain"] = True
    if not case.readable:
        head["readable"] = False
    if case.response_topic is not None:
        head["response_topic"] = case.response_topic
    if case.correlation is not None:
        head["correlation"] = case.correlation.hex()
    if case.expiry_s is not None:
        head["expiry_s"] = case.expiry_s
    return json.dumps(head).encode() + b"\n" + case.payload


def load(data: bytes) -> Case:
    """What ``dump`` wrote. Raises ``ValueError`` for all else, and for what MQTT cannot carry."""
    line, _, payload = data.partition(b"\n")
    match json.loads(line):
        case {"node": str(node), "topic": str(topic), **rest}:
            pass
        case _:
            raise ValueError("a case begins with a line that names its node and its topic")
    response_topic, correlation = rest.get("response_topic"), rest.get("correlation")
    if max(len(text.encode()) for text in (topic, response_topic or "")) > MAX_TOPIC_BYTES:
        raise ValueError("a topic is longer than MQTT has room for")
    return Case(
        node,
        topic,
        payload,
        retain=bool(rest.get("retain")),
        response_topic=response_topic,
        correlation=None if correlation is None else bytes.fromhex(correlation),
        expiry_s=rest.get("expiry_s"),
        readable=bool(rest.get("readable", True)),
    )
