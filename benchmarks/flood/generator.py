"""The flood's source, in a process of its own: prompts at an even rate, from many clients.

``python -m benchmarks.flood.generator PORT NODE CLIENTS PER_MINUTE`` reads a line ``NODE SECONDS``
from its standard input, publishes to that node's topics for so long, waits for the answers, and
prints one line of JSON. It speaks MQTT 3.1.1 by itself, since a library would take more of the
machine than what is measured.
"""

import json
import re
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

ROOT = "edged/v1"
PATIENCE_S = 15.0
"""For the last answers."""
_PUBLISH, _PUBACK = 3, 4
_TYPE = re.compile(rb'"(?:type|code)": "(\w+)"')


@dataclass
class _Connection:
    """One client's socket, and what of the next packet has come."""

    client: str
    sock: socket.socket
    buffer: bytearray = field(default_factory=bytearray)


@dataclass
class Flood:
    """What came of one flood. ``answers`` are the first of each id: ``accepted``, or a code.

    Where much waits to go out, the first text may come before the ``accepted``.
    """

    published: int = 0
    acknowledged: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    slowest_s: float = 0.0
    sent_s: dict[str, float] = field(default_factory=dict)


class Generator:
    """Publishes with QoS 1, listens with QoS 0."""

    def __init__(self, port: int, node: str, clients: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections = []
        for at in range(clients):
            client = f"flood-{at}"
            sock = socket.create_connection(("127.0.0.1", port), 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(_connect(client))
            sock.sendall(_subscribe(f"{ROOT}/{node}/completion/{client}/+"))
            connection = _Connection(client, sock)
            self._connections.append(connection)
            self._selector.register(sock, selectors.EVENT_READ, connection)
        self._count = 0
        self._flood = Flood()

    def flood(self, node: str, seconds: float, per_minute: float, *, answered: bool) -> Flood:
        """At an even rate; ``answered`` floods end once every prompt has an answer."""
        flood = self._flood = Flood()
        began_s = time.monotonic()
        while (now_s := time.monotonic()) < began_s + seconds:
            due = int((now_s - began_s) * per_minute / 60) + 1
            while flood.published < due:
                self._publish(node)
            next_s = began_s + flood.published * 60 / per_minute
            self._hear(max(0.0, next_s - time.monotonic()))
        flood.seconds = time.monotonic() - began_s
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s and (
            flood.acknowledged < flood.published
            or (answered and len(flood.answers) < flood.published)
        ):
            self._hear(0.05)
        return flood

    def _publish(self, node: str) -> None:
        self._count += 1
        connection = self._connections[self._count % len(self._connections)]
        prompt_id = f"f{self._count}"
        body = {"id": prompt_id, "prompt": f"Turn on lamp {self._count}.", "priority": 0}
        topic = f"{ROOT}/{node}/prompt/{connection.client}".encode()
        packet_id = struct.pack("!H", self._count % 0xFFFF + 1)
        payload = json.dumps(body | {"max_tokens": 4, "temperature": 0}).encode()
        self._flood.sent_s[prompt_id] = time.monotonic()
        connection.sock.sendall(_packet(0x32, _string(topic) + packet_id + payload))
        self._flood.published += 1

    def _hear(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            connection: _Connection = key.data
            data = connection.sock.recv(65_536)
            if not data:
                raise ConnectionError(f"the broker has left {connection.client}")
            connection.buffer += data
            while (packet := _take(connection.buffer)) is not None:
                self._take_packet(*packet)

    def _take_packet(self, kind: int, body: bytes) -> None:
        if kind == _PUBACK:
            self._flood.acknowledged += 1
        elif kind == _PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            prompt_id = body[2:end].rpartition(b"/")[2].decode()
            said = _TYPE.findall(body, end)
            answer = said[1].decode() if said[0] == b"failed" else "accepted"
            if prompt_id not in self._flood.answers and prompt_id in self._flood.sent_s:
                self._flood.answers[prompt_id] = answer
                took_s = time.monotonic() - self._flood.sent_s[prompt_id]
                self._flood.slowest_s = max(self._flood.slowest_s, took_s)


def _take(buffer: bytearray) -> tuple[int, bytes] | None:
    """The next whole packet's kind and body; it leaves the buffer."""
    length = shift = 0
    for at in range(1, min(len(buffer), 5)):
        length |= (buffer[at] & 0x7F) << shift
        shift += 7
        if not buffer[at] & 0x80:
            if len(buffer) < at + 1 + length:
                return None
            packet = buffer[0] >> 4, bytes(buffer[at + 1 : at + 1 + length])
            del buffer[: at + 1 + length]
            return packet
    return None


def _connect(client: str) -> bytes:
    return _packet(0x10, _string(b"MQTT") + b"\x04\x02\x00\x00" + _string(client.encode()))


def _subscribe(topic: str) -> bytes:
    return _packet(0x82, b"\x00\x01" + _string(topic.encode()) + b"\x00")


def _string(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text


def _packet(first: int, body: bytes) -> bytes:
    length, head = len(body), bytearray([first])
    while True:
        length, digit = divmod(length, 128)
        head.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


def main() -> None:
    """Until standard input ends."""
    port, node, clients, per_minute = sys.argv[1:]
    generator = Generator(int(port), node, int(clients))
    for line in sys.stdin:
        target, seconds = line.split()
        flood = generator.flood(target, float(seconds), float(per_minute), answered=target == node)
        outcome = {
            "published": flood.published,
            "acknowledged": flood.acknowledged,
            "seconds": flood.seconds,
            "answers": dict(Counter(flood.answers.values())),
            "unanswered": flood.published - len(flood.answers),
            "slowest_s": round(flood.slowest_s, 3),
        }
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
