"""Membership of the pools: a connection of its own, open only while the node can serve.

Mosquitto hands an absent member of a shared subscription its share of the prompts, where they
would wait unseen, if that member has a session. So this one has none.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from edged.settings import Settings
from edged.transports.connection import BrokerConnection
from edged.transports.decode import Incoming
from edged.transports.dialling import Session
from edged.transports.identity import client_id
from edged.transports.outgoing import Outgoing
from edged.transports.topics import Topics

log = logging.getLogger(__name__)

LEAVE_S = 2.0
"""The longest that a broker is waited for which still has prompts for us."""


class PromptReceiver(Protocol):
    """Whoever decodes what comes in."""

    def received(self, incoming: Incoming, acknowledge: Callable[[], None]) -> None: ...


class PoolMembership:
    """Takes the prompts of the pools while it is told to; they are answered over ``replies``."""

    def __init__(
        self, settings: Settings, topics: Topics, receiver: PromptReceiver, replies: Outgoing
    ) -> None:
        session = Session(f"{client_id(settings.node)}-pool", stays=False)
        self._connection = BrokerConnection(settings.mqtt, session, replies)
        self._shares = topics.shares(require_client=settings.mqtt.require_client)
        self._names = ", ".join(topics.pools)
        self._receiver = receiver
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._unwanted.set()
        self._left = asyncio.Event()
        self._left.set()

    @property
    def problem(self) -> str | None:
        """Why the node is no member, though it should be one."""
        return self._connection.problem if self._wanted.is_set() else None

    def serve(self, wanted: bool) -> None:
        """Be a member from now on, or leave."""
        if wanted and self._shares:
            self._unwanted.clear()
            self._wanted.set()
        else:
            self._wanted.clear()
            self._unwanted.set()

    async def leave(self) -> None:
        """Leave, and wait until that is done, at most as long as it may take."""
        self.serve(False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * LEAVE_S):
                await self._left.wait()

    async def run(self) -> None:
        """Come and go until cancelled."""
        while True:
            await self._wanted.wait()
            self._left.clear()
            connection = asyncio.create_task(self._connection.run(self), name="pool-connection")
            leaving = asyncio.create_task(self._unwanted.wait(), name="pool-leaving")
            try:
                await asyncio.wait((connection, leaving), return_when=asyncio.FIRST_COMPLETED)
                # Nobody else would see a prompt that is on its way to us.
                await self._connection.withdraw(self._shares, LEAVE_S)
            finally:
                leaving.cancel()
                connection.cancel()
                await asyncio.gather(connection, leaving, return_exceptions=True)
                self._left.set()
            log.info("left the pools: %s", self._names)
            if not connection.cancelled():
                connection.result()  # a defect: it does not end by itself

    # From the connection

    def connected(self) -> None:
        """Join."""
        self._connection.subscribe(self._shares)
        log.info("joined the pools: %s", self._names)

    def received(self, incoming: Incoming, acknowledge: Callable[[], None]) -> None:
        """A prompt for one of the pools."""
        self._receiver.received(incoming, acknowledge)
