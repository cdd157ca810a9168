"""The properties of what we publish, as MQTT 5 has them on the wire.

paho's own take ten times as long to make, and each group of tokens carries four.
"""

import struct
from dataclasses import dataclass
from functools import cache

_MESSAGE_EXPIRY, _CORRELATION_DATA, _USER_PROPERTY = 0x02, 0x09, 0x26


@dataclass(frozen=True)
class PublishProperties:
    """Stands in for paho's ``Properties``, of which it wants no more than ``pack``."""

    correlation: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None

    def pack(self) -> bytes:
        """With their length before them [MQTT-2.2.2]. Raises ``ValueError`` for too long a one."""
        try:
            packed = b"".join(self._parts())
        except struct.error:
            raise ValueError("a property is longer than 65,535 bytes") from None
        return _variable(len(packed)) + packed

    def _parts(self) -> list[bytes]:
        parts = []
        if self.expiry_s is not None:
            parts.append(struct.pack("!BI", _MESSAGE_EXPIRY, self.expiry_s))
        if self.correlation is not None:
            parts.append(bytes([_CORRELATION_DATA]) + _binary(self.correlation))
        for name, value in self.user_properties:
            parts.append(_named(name) + _binary(value.encode()))
        return parts


@cache  # there are as many as the protocol has
def _named(name: str) -> bytes:
    return bytes([_USER_PROPERTY]) + _binary(name.encode())


def _binary(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _variable(number: int) -> bytes:
    """Seven bits a byte, the lowest first [MQTT-1.5.5]."""
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(digits)
