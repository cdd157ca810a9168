"""paho-mqtt's socket in asyncio's event loop, instead of a thread of paho's own."""

import asyncio
import select
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt import properties as paho_properties
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes

from edged.transports.paho_packets import Received, join_packets

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # there for type checkers only


HEAD_BYTES = 128 * 1024
"""What may stand before a payload: a topic of 64 KiB and, in MQTT 5, properties."""

REST_S = 0.1
REST_MOST_S = 0.4
"""Where no good time to read comes; a refusal may wait so long."""
AT_ONCE = 32
"""Packets that are handled before anything else has its turn."""


class Excess(Exception):
    """The broker sends what nobody asked it for; the connection is not worth keeping."""


class SocketWatcher:
    """Reads and writes for paho when its socket is ready.

    ``ended`` is told why a connection ended, ``has_read`` is called after each read. A path that
    is cut is noticed within about ``keepalive_s``. Of a payload no more is kept than
    ``max_payload_bytes`` and some, however much comes. Made in the loop that it uses. paho connects
    in a thread of the executor, so some of its callbacks come from there.
    """

    def __init__(
        self,
        ended: Callable[[str], None],
        has_read: Callable[[], None],
        keepalive_s: int,
        max_payload_bytes: int,
    ) -> None:
        self._ended = ended
        self._has_read = has_read
        self._keepalive_s = keepalive_s
        self._max_packet_bytes = max_payload_bytes + HEAD_BYTES
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._received: Received
        self._reads_again: asyncio.Handle | None = None
        self._wants_rest = False
        self._resting: asyncio.TimerHandle | None = None
        self._rested_s = 0.0
        self._wake: Callable[[], None] = _nothing

    def rest(self, *, wanted: bool) -> None:
        """Let what comes gather for a moment, once there is nothing more to read.

        To read ten messages one after the other takes half the time of reading each on its own:
        the engine has filled the caches in between, and waits for a processor more often.
        """
        self._wants_rest = wanted

    def look(self) -> None:
        """Read now what has gathered, as it is a good time for it."""
        if self._resting is not None and self._loop.time() >= self._rested_s:
            self._resting.cancel()
            self._wake()

    def watch(self, client: paho.Client) -> None:
        """From now on; a client is watched until its socket closes, and again after that."""
        self._received = Received(client)
        client.on_socket_open = self._on_open
        client.on_socket_close = self._on_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write

    def _on_open(self, client: paho.Client, _data: object, sock: "SocketLike") -> None:
        self._received.forget()
        send_at_once(client, None, sock)
        _notice_silence(sock, self._keepalive_s)
        self._loop.call_soon_threadsafe(self._loop.add_reader, sock, self._read, client)

    def _on_close(self, _client: paho.Client, _data: object, sock: "SocketLike") -> None:
        self._loop.remove_reader(sock)
        if self._reads_again is not None:
            self._reads_again.cancel()
            self._reads_again = None
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _on_register_write(self, client: paho.Client, _data: object, sock: "SocketLike") -> None:
        if threading.get_ident() == self._loop_thread:
            self._loop.add_writer(sock, _write, client)
        else:
            self._loop.call_soon_threadsafe(self._add_writer_later, client, sock)

    def _add_writer_later(self, client: paho.Client, sock: "SocketLike") -> None:
        if sock.fileno() >= 0 and client.want_write():
            self._loop.add_writer(sock, _write, client)
        else:
            client.loop_write()  # paho believes that we watch; this takes that back

    def _on_unregister_write(self, _client: paho.Client, _data: object, sock: "SocketLike") -> None:
        self._loop.remove_writer(sock)

    def _read(self, client: paho.Client) -> None:
        try:
            status = self._read_packets(client)
        except Excess as error:
            self._ended(str(error))  # first: paho has a reason of its own for hanging up
            hang_up(client)
            return
        except Exception as error:  # noqa: BLE001 (paho raises whatever a broken packet makes it)
            self._ended(f"what the broker sent cannot be read: {error!r}")
            hang_up(client)
            return
        finally:
            self._has_read()
        if status != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._ended(paho.error_string(status))
            return
        sock = client.socket()
        # What has been taken from the socket, by us or by TLS, does not show on it any more.
        # Later, as others want their turn.
        if not self._received.is_empty or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            if self._reads_again is None:
                self._reads_again = self._loop.call_soon(self._read_again, client)
        elif self._wants_rest and sock is not None and not _is_readable(sock):
            self._wants_rest = False
            self._loop.remove_reader(sock)
            self._wake = partial(self._end_rest, client, sock)
            self._rested_s = self._loop.time() + REST_S
            self._resting = self._loop.call_later(REST_MOST_S, self._wake)

    def _read_packets(self, client: paho.Client) -> MQTTErrorCode:
        """Paho reads one at a time."""
        for _ in range(AT_ONCE):
            status = client.loop_read()
            self._check_what_is_kept(client)
            if status != MQTTErrorCode.MQTT_ERR_SUCCESS or self._received.is_empty:
                break
        return status

    def _end_rest(self, client: paho.Client, sock: "SocketLike") -> None:
        self._resting = None
        self._loop.add_reader(sock, self._read, client)

    def _check_what_is_kept(self, client: paho.Client) -> None:
        """Raise ``Excess`` for what paho would keep for ever."""
        # In MQTT 3.1.1 a client can publish 256 MiB, and nobody can tell the broker not to hand
        # it on. It has to be read to its end; its length is what it is refused for.
        del client._in_packet["packet"][self._max_packet_bytes :]  # noqa: SLF001 (no other way)
        if client._in_messages:  # noqa: SLF001 (QoS 2, until the broker releases them)
            client._in_messages.clear()  # noqa: SLF001
            raise Excess("the broker sends with QoS 2, which we have not subscribed with")

    def _read_again(self, client: paho.Client) -> None:
        self._reads_again = None
        self._read(client)


def _nothing() -> None:
    pass


def _write(client: paho.Client) -> None:
    join_packets(client)
    client.loop_write()


def _is_readable(sock: "SocketLike") -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def send_at_once(_client: paho.Client, _userdata: object, sock: "SocketLike") -> None:
    """Switch Nagle's algorithm off: small messages must not wait for each other (40 ms)."""
    if isinstance(sock, socket.socket):  # paho may wrap it for other transports than TCP
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _notice_silence(sock: "SocketLike", keepalive_s: int) -> None:
    """Let the kernel end a connection whose other side has gone without a word.

    MQTT's own ping goes out only after ``keepalive_s`` of silence, and is waited for as long.
    """
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, keepalive_s * 1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, keepalive_s // 2))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, keepalive_s // 4))


def hang_up(client: paho.Client) -> None:
    """Say goodbye if there is someone to say it to, and let go of the socket."""
    client.disconnect()
    client.loop_write()
    client._sock_close()  # noqa: SLF001 (paho closes only once the broker answers)


def _read_utf(buffer: bytes, room: int) -> tuple[str, int]:
    """Read a string as paho does, without its refusal of U+FEFF.

    MQTT allows that character, so brokers hand it on; a message that cannot be read is never
    acknowledged, and would come back, and end the connection, as long as the session lives.
    """
    end = 2 + int.from_bytes(buffer[:2], "big")
    if room < 2 or end > room:
        raise MalformedPacket("a string is longer than its packet")
    return buffer[2:end].decode("utf-8"), end


UNREADABLE = "unreadable"
"""An attribute of the properties that could not be read."""

_unpack = paho_properties.Properties.unpack
_make = paho_properties.Properties.__init__
_made: dict[int, dict[str, object]] = {}


def _make_quickly(properties: paho_properties.Properties, packet_type: int) -> None:
    """As paho does, but the tables of what MQTT knows are made once for each type of packet."""
    if packet_type not in _made:
        _make(properties, packet_type)  # type: ignore[no-untyped-call]
        _made[packet_type] = dict(vars(properties))
    vars(properties).update(_made[packet_type])


def _unpack_leniently(
    properties: paho_properties.Properties, buffer: bytes
) -> tuple[paho_properties.Properties, int]:
    """Read properties as paho does, but pass over those of a message that it finds fault with.

    Brokers hand on what they should not (Mosquitto 2.0.11: a Payload Format Indicator of 2), and
    such a message would come back, too. It has no properties then, but ``UNREADABLE``.
    """
    if buffer[:1] == b"\x00":
        return properties, 1  # none: paho would look for each that it knows
    try:
        return _unpack(properties, buffer)  # type: ignore[no-any-return, no-untyped-call]
    except Exception:
        if properties.packetType != PacketTypes.PUBLISH:
            raise
        length, taken = paho_properties.VariableByteIntegers.decode(buffer)  # type: ignore[no-untyped-call]
        properties.clear()  # type: ignore[no-untyped-call]
        object.__setattr__(properties, UNREADABLE, True)  # paho's own refuses names of others
        return properties, length + taken


paho_properties.readUTF = _read_utf
paho_properties.Properties.__init__ = _make_quickly  # type: ignore[method-assign]
paho_properties.Properties.unpack = _unpack_leniently  # type: ignore[method-assign]
