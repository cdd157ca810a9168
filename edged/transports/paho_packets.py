"""Many packets in one call of the kernel, in both directions, where paho makes one for each.

It takes three to read a packet (a byte, the length, the rest) and one to write it. Under a flood
these, and what each wakes on the other side, took a third of all that a refusal costs.
"""

from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes

RECEIVE_BYTES: Final = 4 * 1024
"""To take from the socket at once: some ten prompts of a flood. Python reserves as much each time,
and larger pieces, cut to what came, would leave holes in the heap."""
MOST_BYTES: Final = 64 * 1024
"""Of a long payload. paho takes so much up to a hundred times before it lets us look."""
_OWN_CARE: Final = (PacketTypes.PUBLISH, PacketTypes.DISCONNECT)
"""Kinds of packet with which paho does something once they are written."""


class Received:
    """Stands between one paho client and its socket; hands out what it took in pieces."""

    def __init__(self, client: paho.Client) -> None:
        self._receive = client._sock_recv  # noqa: SLF001 (paho has no other way)
        self._data = b""
        self._at = 0
        client._sock_recv = self._take  # type: ignore[assignment,method-assign]  # noqa: SLF001

    @property
    def is_empty(self) -> bool:
        """Whether paho has had all that was taken from the socket."""
        return self._at >= len(self._data)

    def forget(self) -> None:
        """The socket is another one."""
        self._data, self._at = b"", 0

    def _take(self, most_bytes: int) -> bytes:
        if self.is_empty:
            # Raises what paho expects of its own, as when there is nothing.
            self._data, self._at = self._receive(max(RECEIVE_BYTES, min(most_bytes, MOST_BYTES))), 0
        data = self._data[self._at : self._at + most_bytes]
        self._at += len(data)
        return data


def join_packets(client: paho.Client) -> None:
    """Make one of each run of packets that wait to be written and need no care of paho's.

    Those of QoS 0 do, as paho tells when they are written; those of QoS 1 are heard of when they
    are acknowledged.
    """
    waiting = client._out_packet  # noqa: SLF001 (no other way)
    if len(waiting) <= 1:
        return
    runs: list[list[Any]] = []
    for packet in waiting:
        if runs and _may_be_joined(packet) and _may_be_joined(runs[-1][-1]):
            runs[-1].append(packet)
        else:
            runs.append([packet])
    waiting.clear()
    waiting.extend(_joined(run) for run in runs)


def _may_be_joined(packet: Any) -> bool:
    kind = packet["command"] >> 4
    return packet["pos"] == 0 and (
        kind not in _OWN_CARE or (kind == PacketTypes.PUBLISH and packet["qos"] > 0)
    )


def _joined(run: list[Any]) -> Any:
    if len(run) == 1:
        return run[0]
    data = b"".join(packet["packet"] for packet in run)
    return {**run[0], "packet": data, "to_process": len(data)}
