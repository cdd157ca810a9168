"""What the broker gave us and waits to hear of: acknowledged late, and in the order received."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """One incoming QoS 1 message, of one connection."""

    generation: int
    number: int


class Acknowledgements:
    """The incoming QoS 1 messages of the connection that we have, in the order received.

    MQTT wants them acknowledged in that order [MQTT-4.6.0-2], so one that is not done yet holds
    back those behind it. What was not acknowledged when a connection ended comes again over the
    next one, perhaps with another packet id, and a broker that lost its state uses the old ids
    for other messages: so tokens of an earlier connection mean nothing.
    """

    def __init__(self) -> None:
        self._generation = 0
        self._taken = 0
        self._packet_ids: deque[int] = deque()  # of the last len() messages that were taken
        self._done: set[int] = set()

    def __len__(self) -> int:
        """How many are not acknowledged."""
        return len(self._packet_ids)

    def forget(self) -> None:
        """The connection has ended, or a new one begins."""
        self._generation += 1
        self._packet_ids.clear()
        self._done.clear()

    def take(self, packet_id: int) -> Token:
        """A message has come."""
        self._packet_ids.append(packet_id)
        self._taken += 1
        return Token(self._generation, self._taken)

    def finish(self, token: Token) -> None:
        """That message is done; to say so again changes nothing."""
        if token.generation == self._generation and token.number > self._taken - len(self):
            self._done.add(token.number)

    def due(self) -> list[int]:
        """The packet ids to acknowledge now, in order; they leave the book."""
        ids: list[int] = []
        while self._packet_ids and (number := self._taken - len(self) + 1) in self._done:
            self._done.remove(number)
            ids.append(self._packet_ids.popleft())
        return ids
