"""What stands in the cache, and who may go on from there.

Each slot is a sequence of the engine, and keeps its tokens when its prompt has ended. A prompt
starts from the longest beginning that it shares with an idle slot of the same client, or with a
pinned sequence: the operator's own prompt, which everybody may start from. What others have said
never shows, not even by how soon an answer comes.

All sequences share the engine's cells. A prompt reserves what it and its answer may fill; where
that is missing, idle slots are forgotten, the least recently used first, then the pinned
sequence; one that is being answered never is.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edged.engine.protocol import Engine


@dataclass
class Held:
    """A sequence: its tokens so far, and the cells they stand in, which copies share."""

    index: int
    owner: str | None = None
    """The client; ``None`` for a pinned one."""
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list, repr=False)
    reserved: int = 0
    """Tokens it may grow to while its prompt runs; 0 when it is idle."""
    last_used: int = 0


class Prefixes:
    """The bookkeeping of one engine's cache: its slots, and behind them the pinned sequence."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = [Held(index) for index in range(engine.slots)]
        # An engine with no sequence to spare does without: its one slot keeps what it read.
        self._pin = Held(engine.slots) if engine.sequences > engine.slots else None
        self._in_use: Counter[int] = Counter()
        self._cell_numbers = itertools.count()
        self._clock = itertools.count(1)

    @property
    def used_cells(self) -> int:
        """Cells that hold a token of any sequence."""
        return len(self._in_use)

    @property
    def idle_tokens(self) -> int:
        """Tokens that idle slots and pinned sequences hold; what ``forget_idle`` gives back."""
        return sum(len(held.tokens) for held in self._forgettable())

    def begin(self, owner: str, prompt: Sequence[int], tokens: int) -> Held | None:
        """A slot for a prompt that may fill ``tokens`` with its answer; ``None``: it must wait.

        What it holds already is the prompt's beginning, and at least the prompt's last token
        is still to be read.
        """
        active = [slot for slot in self._slots if slot.reserved]
        idle = [slot for slot in self._slots if not slot.reserved]
        if not idle or sum(slot.reserved for slot in active) + tokens > self._engine.cells:
            return None
        source, shared = self._best(owner, prompt, idle)
        slot = self._target(source, shared, idle)
        if slot is source:
            self.cut(slot, shared)
        else:
            self.cut(slot, 0)
            if source is not None:
                self._copy(source, slot, shared)
        slot.owner, slot.reserved, slot.last_used = owner, tokens, next(self._clock)
        if source is not None:
            source.last_used = slot.last_used
        self._make_room()
        return slot

    def grow(self, held: Held, tokens: Iterable[int]) -> None:
        """The engine has read these behind what the sequence held."""
        for token in tokens:
            cell = next(self._cell_numbers)
            self._in_use[cell] += 1
            held.tokens.append(token)
            held.cells.append(cell)

    def rest(self, held: Held) -> None:
        """The prompt has ended; its tokens stay for the next one of this client."""
        held.reserved, held.last_used = 0, next(self._clock)

    def drop(self, held: Held) -> None:
        """The prompt has ended, and what its sequence holds is of no use."""
        held.reserved = 0
        self.cut(held, 0)
        self._engine.forget(held.index, 0)  # also what a decode left that failed halfway

    def pin(self, source: Held, tokens: int) -> None:
        """Keep the first ``tokens`` of ``source`` for everybody."""
        if self._pin is not None and len(self._pin.tokens) < tokens:
            self.cut(self._pin, 0)
            self._copy(source, self._pin, tokens)
            self._pin.last_used = next(self._clock)

    def slot_to_pin(self, tokens: int) -> Held | None:
        """An idle slot that holds what is pinned, to read on in, up to ``tokens`` of them.

        (llama.cpp decodes in no sequence behind the slots.) ``None`` where all is pinned, or
        the room is needed for what clients have left.
        """
        pin = self._pin
        if pin is None or len(pin.tokens) >= tokens:
            return None
        idle = [slot for slot in self._slots if not slot.reserved]
        if not idle or self._engine.cells - self.used_cells < tokens - len(pin.tokens):
            return None
        slot = self._target(None, 0, idle)
        self.cut(slot, 0)
        self._copy(pin, slot, len(pin.tokens))
        return slot

    def forget_idle(self) -> None:
        """Give up all that nobody is being answered from."""
        for held in self._forgettable():
            self.cut(held, 0)

    def _best(
        self, owner: str, prompt: Sequence[int], idle: Sequence[Held]
    ) -> tuple[Held | None, int]:
        best, most = None, 0
        pins = [] if self._pin is None else [self._pin]
        for held in (*(slot for slot in idle if slot.owner == owner), *pins):
            shared = min(_common(held.tokens, prompt), len(prompt) - 1)
            if shared > most:
                best, most = held, shared
        return best, most

    @staticmethod
    def _target(source: Held | None, shared: int, idle: Sequence[Held]) -> Held:
        """The slot to use: the source where it is only continued, else the one missed least."""
        if source in idle and source is not None and shared >= len(source.tokens) - 1:
            return source
        return min(idle, key=lambda slot: (bool(slot.tokens), slot is source, slot.last_used))

    def _make_room(self) -> None:
        """So that every prompt that runs can grow to what it reserved."""
        growing = [slot for slot in self._slots if slot.reserved]
        room = sum(slot.reserved - len(slot.tokens) for slot in growing)
        for held in self._forgettable():
            if self._engine.cells - self.used_cells >= room:
                return
            self.cut(held, 0)

    def _forgettable(self) -> list[Held]:
        """Idle slots, the least recently used first, then the pinned sequence."""
        idle = [slot for slot in self._slots if slot.tokens and not slot.reserved]
        idle.sort(key=lambda slot: slot.last_used)
        return [*idle, self._pin] if self._pin is not None else idle

    def _copy(self, source: Held, target: Held, tokens: int) -> None:
        self._engine.copy(source.index, target.index, tokens)
        target.tokens = source.tokens[:tokens]
        target.cells = source.cells[:tokens]
        self._in_use.update(target.cells)

    def cut(self, held: Held, length: int) -> None:
        """Keep only the first ``length`` tokens."""
        if length >= len(held.tokens):
            return
        self._engine.forget(held.index, length)
        for cell in held.cells[length:]:
            self._in_use[cell] -= 1
            if not self._in_use[cell]:
                del self._in_use[cell]
        del held.tokens[length:]
        del held.cells[length:]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next((at for at in range(length) if first[at] != second[at]), length)
