"""A client of the bus that says what no library lets it say, in MQTT 5 or 3.1.1."""

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import BinaryIO

PATIENCE_S = 30.0
CONNACK, PUBACK, PUBREC, PUBCOMP, PINGRESP = 0x20, 0x40, 0x50, 0x70, 0xD0
ANSWER_TO_QOS = (PINGRESP, PUBACK, PUBREC)


@dataclass(frozen=True)
class Message:
    """A publish; ``properties`` are as they stand on the wire, of MQTT 5 only."""

    topic: bytes
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: tuple[bytes, ...] = ()


def framed(first: int, body: bytes, length: int | None = None) -> bytes:
    """A packet; its remaining length may be a lie."""
    number, coded = len(body) if length is None else length, bytearray()
    while True:
        number, digit = divmod(number, 128)
        coded.append(digit | (0x80 if number else 0))
        if not number:
            return bytes([first]) + coded + body


def text(raw: bytes) -> bytes:
    """A string or binary data, with its length in front."""
    return struct.pack(">H", len(raw)) + raw


def variable(number: int) -> bytes:
    """A number as MQTT packs lengths."""
    return framed(0, b"", number)[1:]


def send(port: int, message: Message, *, v5: bool) -> bool:
    """Publish over a connection of its own; whether the broker took it."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as link,
        link.makefile("rb") as file,
    ):
        name = os.urandom(8).hex().encode()
        options = b"\x05\x02\x00\x3c\x00" if v5 else b"\x04\x02\x00\x3c"
        link.sendall(framed(0x10, text(b"MQTT") + options + text(name)))
        with contextlib.suppress(ConnectionError, EOFError):
            if _next(file)[0] != CONNACK:
                return False
            link.sendall(_publish(message, v5=v5))
            if message.qos == 0:
                link.sendall(b"\xc0\x00")  # a ping: its answer comes after what was before
            kind, body = _next(file)
            taken = kind == ANSWER_TO_QOS[message.qos] and (len(body) < 3 or body[2] < 0x80)
            if taken and message.qos == 2:
                link.sendall(b"\x62\x02\x00\x01")
                taken = _next(file)[0] == PUBCOMP
            link.sendall(b"\xe0\x00")
            return taken
    return False


def _publish(message: Message, *, v5: bool) -> bytes:
    body = text(message.topic)
    if message.qos:
        body += b"\x00\x01"
    if v5:
        properties = b"".join(message.properties)
        body += variable(len(properties)) + properties
    return framed(0x30 | message.qos << 1 | message.retain, body + message.payload)


def _next(file: BinaryIO) -> tuple[int, bytes]:
    """Kind and body of a packet. Raises ``EOFError`` where the broker has hung up."""
    first = _exactly(file, 1)[0]
    length = shift = 0
    while True:
        byte = _exactly(file, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return first & 0xF0, _exactly(file, length)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data or b"") < count:
        raise EOFError
    return data
