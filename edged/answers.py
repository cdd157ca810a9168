"""Terminal messages: committed, then published, until somebody is responsible for them."""

from collections.abc import Callable
from typing import Final

from edged.errors import PromptFailure
from edged.job import Job
from edged.messages import Reply, Send
from edged.spool.sessions import NewTurn
from edged.spool.spool import Ended, Spool

MOST_AT_ONCE: Final = 256
"""Answers handed to the transport and not delivered; more wait in the spool, not in memory."""


class Answers:
    """Each is sent once it is on disk, and again after a restart unless it was delivered."""

    def __init__(self, spool: Spool, send_to: Callable[[str], Send]) -> None:
        self._spool = spool
        self._send_to = send_to
        self._sent: set[int] = set()
        self._noted: set[int] = set()
        self._are_held_back = False

    def end(self, job: Job, reply: Reply, turn: NewTurn | None, then: Callable[[], None]) -> None:
        """Commit and publish; ``then`` is called in between."""

        def written(_failure: PromptFailure | None) -> None:
            # What cannot be written for a defect of ours is answered nevertheless.
            then()
            self._publish(job.number, job.origin.send, reply)

        ended = Ended(job.number, job.prompt.digest, job.origin.address, reply)
        self._spool.finish(job.prompt, ended, turn, written)

    def send_undelivered(self) -> None:
        """Publish what was committed and not delivered, as much as may be out at once."""
        but = self._sent | self._noted
        count = MOST_AT_ONCE - len(self._sent)
        waiting = self._spool.undelivered(but, count)
        self._are_held_back = len(waiting) == count
        for ended in waiting:
            self._publish(ended.number, self._send_to(ended.address), ended.reply)

    def _publish(self, number: int, send: Send, reply: Reply) -> None:
        if len(self._sent) >= MOST_AT_ONCE:
            self._are_held_back = True
            return
        self._sent.add(number)
        send(reply, lambda: self._deliver(number))

    def _deliver(self, number: int) -> None:
        self._sent.discard(number)
        self._noted.add(number)
        self._spool.delivered(number, lambda _failure: self._noted.discard(number))
        if self._are_held_back and len(self._sent) < MOST_AT_ONCE // 2:
            self.send_undelivered()
