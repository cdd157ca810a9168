"""Who may wait, and who is next: a bounded queue by priority, then by arrival.

Pure bookkeeping; what the entries mean is the pipeline's business.
"""

import itertools
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from edged.errors import QueueFull


class Entry(Protocol):
    """Something that waits."""

    @property
    def key(self) -> Hashable: ...
    @property
    def priority(self) -> int: ...


T = TypeVar("T", bound=Entry)


class Admission(Generic[T]):
    """At most ``max_prompts`` entries; the highest priority leaves first, ties in arrival order.

    A look at all of them finds the next: they are few, and a step of the engine takes
    a thousand times longer.
    """

    def __init__(self, max_prompts: int) -> None:
        self._max_prompts = max_prompts
        self._waiting: dict[Hashable, tuple[int, int, T]] = {}
        self._order = itertools.count()
        self._returned = itertools.count(-(2**63))

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, entry: T, *, retry_after_s: float | None = None) -> int:
        """Let the entry wait; returns how many will leave before it.

        Raises ``QueueFull``, which carries ``retry_after_s``.
        """
        if len(self._waiting) >= self._max_prompts:
            raise QueueFull(
                f"{len(self._waiting)} prompts wait already, as many as queue.max_prompts allows; "
                "try again later",
                retry_after_s=retry_after_s,
                details={"queued": len(self._waiting), "limit": self._max_prompts},
            )
        rank = (-entry.priority, next(self._order))
        position = sum(other[:2] < rank for other in self._waiting.values())
        self._waiting[entry.key] = (*rank, entry)
        return position

    def put_back(self, entry: T) -> None:
        """Let an entry wait again that had left, before all others of its priority."""
        self._waiting[entry.key] = (-entry.priority, next(self._returned), entry)

    def next(self) -> T | None:
        """Take the entry whose turn it is."""
        if not self._waiting:
            return None
        entry = min(self._waiting.values(), key=lambda waiting: waiting[:2])[2]
        return self.remove(entry.key)

    def remove(self, key: Hashable) -> T | None:
        """Take an entry out of turn; ``None`` when it does not wait."""
        waiting = self._waiting.pop(key, None)
        return None if waiting is None else waiting[2]
