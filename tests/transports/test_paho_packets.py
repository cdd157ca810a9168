"""Packets taken and given in bulk, as paho and the other side see them."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import paho.mqtt.client as paho
import pytest

from edged.transports.paho_packets import MOST_BYTES, Received, join_packets

PUBLISH, PUBACK, DISCONNECT = 0x30, 0x40, 0xE0


def client_with(*packets: dict[str, Any]) -> Any:
    return SimpleNamespace(_out_packet=deque(packets))


def packet(command: int, data: bytes, *, qos: int = 0, pos: int = 0) -> dict[str, Any]:
    rest = len(data) - pos
    return {"command": command, "qos": qos, "pos": pos, "to_process": rest, "packet": data}


def written(client: Any) -> list[bytes]:
    return [bytes(each["packet"]) for each in client._out_packet]


def receiving(*chunks: bytes) -> tuple[Any, Received, list[int]]:
    """A client whose socket gives these, then nothing; and what was asked of the socket."""
    asked: list[int] = []
    left = deque(chunks)

    def receive(most_bytes: int) -> bytes:
        asked.append(most_bytes)
        if not left:
            raise BlockingIOError
        return left.popleft()

    client: Any = SimpleNamespace(_sock_recv=receive)
    return client, Received(client), asked


def test_small_reads_take_one_call_of_the_socket() -> None:
    client, _, asked = receiving(b"abcdef")

    assert [client._sock_recv(1), client._sock_recv(2), client._sock_recv(9)] == [
        b"a",
        b"bc",
        b"def",
    ]
    assert len(asked) == 1


def test_a_long_payload_is_asked_for_in_pieces_of_a_bounded_size() -> None:
    client, _, asked = receiving(b"x" * 70_000)
    client._sock_recv(10 * MOST_BYTES)

    assert asked == [MOST_BYTES]


def test_what_is_left_is_known() -> None:
    client, received, _ = receiving(b"abc")
    client._sock_recv(2)

    assert not received.is_empty
    client._sock_recv(1)
    assert received.is_empty


def test_an_empty_socket_looks_as_paho_expects() -> None:
    client, _, _ = receiving()

    with pytest.raises(BlockingIOError):
        client._sock_recv(1)


def test_the_end_of_a_connection_looks_as_paho_expects() -> None:
    client, _, _ = receiving(b"")

    assert client._sock_recv(1) == b""


def test_another_socket_begins_with_nothing() -> None:
    client, received, _ = receiving(b"old", b"new")
    client._sock_recv(1)
    received.forget()

    assert client._sock_recv(9) == b"new"


def test_acknowledgements_and_messages_of_qos_1_are_joined_in_their_order() -> None:
    client = client_with(
        packet(PUBACK, b"ack 1 "), packet(PUBLISH | 2, b"say 1 ", qos=1), packet(PUBACK, b"ack 2")
    )
    join_packets(client)

    assert written(client) == [b"ack 1 say 1 ack 2"]
    assert client._out_packet[0]["to_process"] == len(b"ack 1 say 1 ack 2")


@pytest.mark.parametrize("alone", [packet(PUBLISH, b"watch"), packet(DISCONNECT, b"bye")])
def test_what_paho_does_something_for_when_it_is_written_stays_alone(alone: dict[str, Any]) -> None:
    client = client_with(packet(PUBACK, b"1"), packet(PUBACK, b"2"), alone, packet(PUBACK, b"3"))
    join_packets(client)

    assert written(client) == [b"12", alone["packet"], b"3"]


def test_what_is_half_written_stays_as_it_is() -> None:
    client = client_with(packet(PUBACK, b"half", pos=2), packet(PUBACK, b"1"), packet(PUBACK, b"2"))
    join_packets(client)

    assert written(client) == [b"half", b"12"]


def test_paho_has_what_is_reached_into() -> None:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)

    assert isinstance(client._out_packet, deque)
    assert callable(client._sock_recv)
