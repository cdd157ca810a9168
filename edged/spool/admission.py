"""Who may wait, and who is next: a bounded queue by priority, then in turns between clients.

Pure bookkeeping; what the entries mean is the pipeline's business.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from edged.errors import ClientQuota, QueueFull
from edged.settings import QueueSettings

QUOTA_S: Final = 60.0
REMEMBERED: Final = 1024
"""Clients whose last turn is remembered; who is forgotten counts as never served."""


class Entry(Protocol):
    """Something that waits."""

    @property
    def key(self) -> Hashable: ...
    @property
    def client(self) -> str: ...
    @property
    def priority(self) -> int: ...


T = TypeVar("T", bound=Entry)


class Admission(Generic[T]):
    """The highest priority leaves first; of equals, the client whose last turn is longest ago.

    A look at all of them finds the next: they are few, and a step of the engine takes
    a thousand times longer.
    """

    def __init__(self, limits: QueueSettings) -> None:
        self.limits = limits
        self._waiting: dict[Hashable, tuple[int, int, T]] = {}
        self._order = itertools.count()
        self._returned = itertools.count(-1, -1)
        self._turns = itertools.count(1)
        self._last_turn: dict[str, int] = {}
        self._spent: dict[str, deque[tuple[float, int]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[T]:
        return (entry for *_, entry in self._waiting.values())

    def admit(self, entry: T, now_s: float, *, retry_after_s: float | None = None) -> int:
        """Let the entry wait; returns how many will leave before it.

        Raises ``QueueFull`` or ``ClientQuota``, which carry when to try again.
        """
        limits = self.limits
        if len(self._waiting) >= limits.max_prompts:
            raise QueueFull(
                f"{len(self._waiting)} prompts wait already, as many as queue.max_prompts allows; "
                "try again later",
                retry_after_s=retry_after_s,
                details={"queued": len(self._waiting), "limit": limits.max_prompts},
            )
        queued = sum(other.client == entry.client for other in self)
        if limits.client_queued is not None and queued >= limits.client_queued:
            raise ClientQuota(
                f"{queued} prompts of this client wait already, as many as queue.client_queued "
                "allows; try again later",
                retry_after_s=retry_after_s,
                details={"queued": queued, "limit": limits.client_queued},
            )
        self._check_tokens(entry.client, now_s)
        return self.restore(entry)

    def restore(self, entry: T) -> int:
        """Let an entry wait that was admitted before; returns how many will leave before it."""
        rank = (-entry.priority, next(self._order))
        position = self._ahead(entry)
        self._waiting[entry.key] = (*rank, entry)
        return position

    def put_back(self, entry: T) -> None:
        """Let an entry wait again that had left, before all others of its priority."""
        self._waiting[entry.key] = (-entry.priority, next(self._returned), entry)

    def next(self, may: Callable[[T], bool] = lambda _: True) -> T | None:
        """Take the entry whose turn it is, of those that may leave now."""
        waiting = [each for each in self._waiting.values() if may(each[2])]
        if not waiting:
            return None
        entry = min(waiting, key=self._rank)[2]
        self._last_turn.pop(entry.client, None)
        self._last_turn[entry.client] = next(self._turns)
        if len(self._last_turn) > REMEMBERED:
            del self._last_turn[next(iter(self._last_turn))]
        return self.remove(entry.key)

    def remove(self, key: Hashable) -> T | None:
        """Take an entry out of turn; ``None`` when it does not wait."""
        waiting = self._waiting.pop(key, None)
        return None if waiting is None else waiting[2]

    def spend(self, client: str, tokens: int, now_s: float) -> None:
        """Count what a client's prompt and answer took; only where there is a limit."""
        if self.limits.client_tokens_per_min is not None:
            self._spent.setdefault(client, deque()).append((now_s, tokens))

    def _rank(self, waiting: tuple[int, int, T]) -> tuple[int, bool, int, int]:
        priority, order, entry = waiting
        return (priority, order >= 0, self._last_turn.get(entry.client, 0), order)

    def _ahead(self, entry: T) -> int:
        """Of each other client, as many as this one has waiting, and one more if it is its turn."""
        mine = 0
        others: Counter[str] = Counter()
        count = 0
        for priority, order, other in self._waiting.values():
            if priority < -entry.priority or (priority == -entry.priority and order < 0):
                count += 1
            elif priority == -entry.priority and other.client == entry.client:
                mine += 1
            elif priority == -entry.priority:
                others[other.client] += 1
        turn = self._last_turn.get(entry.client, 0)
        # Who has as long not had a turn, and waits, comes before a newcomer.
        return (
            count
            + sum(
                min(waiting, mine + (self._last_turn.get(client, 0) <= turn))
                for client, waiting in others.items()
            )
            + mine
        )

    def _check_tokens(self, client: str, now_s: float) -> None:
        limit = self.limits.client_tokens_per_min
        for each in list(self._spent):
            spent = self._spent[each]
            while spent and spent[0][0] <= now_s - QUOTA_S:
                spent.popleft()
            if not spent:
                del self._spent[each]
        spent = self._spent.get(client, deque())
        total = sum(tokens for _, tokens in spent)
        if limit is not None and total >= limit:
            raise ClientQuota(
                f"this client has used {total} tokens within a minute, and "
                f"{limit} are allowed (queue.client_tokens_per_min)",
                retry_after_s=round(spent[0][0] + QUOTA_S - now_s, 3),
                details={"tokens": total, "limit": limit},
            )
