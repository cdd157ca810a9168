"""Whose tokens a prompt starts from, and that the cells are counted exactly."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from edged.engine.echo import EchoEngine
from edged.engine.frames import Load
from edged.engine.prefixes import Held, Prefixes
from edged.engine.protocol import BatchChunk

SYSTEM = [1, 2, 3, 4]


class OneSequence(EchoEngine):
    """Has no sequence to spare, as ctransformers."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.sequences = 1

    def copy(self, source: int, target: int, tokens: int) -> None:
        raise AssertionError("there is one sequence")


class Cache:
    """An engine and the bookkeeping of it, moved together as the step loop does."""

    def __init__(
        self, slots: int = 2, cells: int = 1000, kind: type[EchoEngine] = EchoEngine
    ) -> None:
        self.engine = kind(Load("echo", None, "", None, slots, 1, 0, cells=cells))
        self.prefixes = Prefixes(self.engine)

    def read(self, held: Held, tokens: list[int]) -> None:
        self.engine.decode([BatchChunk(held.index, len(held.tokens), tokens, outputs=0)])
        self.prefixes.grow(held, tokens)

    def start(self, owner: str, prompt: list[int], answer: int = 10) -> tuple[Held, int]:
        """A prompt that is read to its end; how many of its tokens were there already."""
        held = self.prefixes.begin(owner, prompt, len(prompt) + answer)
        assert held is not None
        cached = len(held.tokens)
        self.read(held, prompt[cached:])
        return held, cached

    def ask(self, owner: str, prompt: list[int], answer: int = 10) -> int:
        """A prompt from its begin to its end; how many of its tokens were there already."""
        held, cached = self.start(owner, prompt, answer)
        self.prefixes.rest(held)
        return cached

    def pin(self, tokens: list[int] = SYSTEM) -> None:
        """Read the operator's prompt, as is done before anybody asks."""
        slot = self.prefixes.slot_to_pin(len(tokens))
        assert slot is not None
        self.read(slot, tokens)
        self.prefixes.pin(slot, len(tokens))
        self.prefixes.drop(slot)


# Whose tokens


def test_a_client_starts_from_its_own_tokens() -> None:
    cache = Cache()
    cache.ask("ann", [1, 2, 3, 4, 5])

    assert cache.ask("ann", [1, 2, 3, 4, 9, 9]) == 4


def test_what_was_answered_counts_as_the_clients_own() -> None:
    cache = Cache()
    held, _ = cache.start("ann", [1, 2, 3])
    cache.read(held, [7, 8])
    cache.prefixes.rest(held)

    assert cache.ask("ann", [1, 2, 3, 7, 8, 4]) == 5


def test_another_client_starts_from_nothing() -> None:
    cache = Cache()
    cache.ask("ann", [1, 2, 3, 4, 5])

    assert cache.ask("bob", [1, 2, 3, 4, 5]) == 0


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_another_client_starts_from_nothing_when_every_slot_holds_exactly_its_prompt(
    slots: int,
) -> None:
    cache = Cache(slots=slots)
    prompt = [1, 2, 3, 4, 5]
    for held in [cache.start("ann", prompt)[0] for _ in range(slots)]:
        cache.prefixes.rest(held)

    assert cache.ask("bob", prompt) == 0


def test_a_client_without_a_name_is_a_stranger_to_those_who_have_one() -> None:
    cache = Cache()
    cache.ask("ann", [1, 2, 3])
    cache.ask("", [1, 2, 3])

    assert cache.ask("bob", [1, 2, 3]) == 0


def test_a_slot_that_was_another_clients_holds_nothing_of_it() -> None:
    cache = Cache(slots=1)
    cache.ask("ann", [1, 2, 3, 4, 5])
    held, _ = cache.start("bob", [1, 2, 9])

    assert cache.engine._tokens[held.index] == [1, 2, 9]


def test_the_first_client_gets_nothing_back_from_a_slot_that_was_taken_over() -> None:
    cache = Cache(slots=1)
    cache.ask("ann", [1, 2, 3, 4])
    cache.ask("bob", [1, 2, 3, 9])

    assert cache.ask("ann", [1, 2, 3, 4]) == 0


def test_a_prompt_that_is_running_is_not_started_from() -> None:
    cache = Cache()
    cache.start("ann", [1, 2, 3, 4])

    assert cache.ask("ann", [1, 2, 3, 4]) == 0


def test_the_last_token_of_a_prompt_is_always_read() -> None:
    cache = Cache()
    cache.ask("ann", [1, 2, 3])

    assert cache.ask("ann", [1, 2, 3]) == 2


def test_the_longest_of_several_beginnings_is_taken() -> None:
    cache = Cache(slots=3)
    cache.ask("ann", [1, 2, 9, 9, 9])
    cache.ask("ann", [1, 2, 3, 4, 8, 8])
    cache.ask("ann", [5, 5])

    assert cache.ask("ann", [1, 2, 3, 4, 5, 6]) == 4


def test_a_prompt_that_failed_leaves_nothing_to_start_from() -> None:
    cache = Cache()
    held, _ = cache.start("ann", [1, 2, 3])
    cache.prefixes.drop(held)

    assert cache.ask("ann", [1, 2, 3]) == 0


def test_what_a_failing_decode_left_behind_is_forgotten_too() -> None:
    cache = Cache(slots=1)
    held = cache.prefixes.begin("ann", [1, 2, 3], 10)
    assert held is not None
    cache.engine.decode([BatchChunk(held.index, 0, [1, 2], outputs=0)])  # and then it failed
    cache.prefixes.drop(held)

    assert cache.ask("bob", [1, 2, 3]) == 0  # which the engine reads from position 0


# The operator's prompt


@pytest.mark.parametrize("owner", ["ann", "bob", ""])
def test_everybody_starts_from_the_operators_prompt(owner: str) -> None:
    cache = Cache()
    cache.pin()

    assert cache.ask(owner, [*SYSTEM, 7, 8]) == len(SYSTEM)


def test_many_start_from_the_operators_prompt_at_once() -> None:
    cache = Cache(slots=3)
    cache.pin()
    prompts = {owner: [*SYSTEM, number] for number, owner in enumerate("abc", start=10)}

    assert [cache.start(*each)[1] for each in prompts.items()] == [len(SYSTEM)] * 3


def test_the_operators_prompt_takes_its_cells_once() -> None:
    cache = Cache(slots=3)
    cache.pin()
    for owner in "abc":
        cache.start(owner, [*SYSTEM, 10])

    assert cache.prefixes.used_cells == len(SYSTEM) + 3


def test_what_a_client_said_behind_the_operators_prompt_stays_its_own() -> None:
    cache = Cache()
    cache.pin()
    cache.ask("ann", [*SYSTEM, 7, 8, 9])

    assert cache.ask("bob", [*SYSTEM, 7, 8, 9]) == len(SYSTEM)


def test_who_has_read_the_operators_prompt_has_read_it_for_all() -> None:
    cache = Cache()
    held, _ = cache.start("ann", [*SYSTEM, 7, 8])
    cache.prefixes.pin(held, len(SYSTEM))
    cache.prefixes.rest(held)

    assert cache.ask("bob", [*SYSTEM, 7, 8]) == len(SYSTEM)


def test_the_operators_prompt_outlives_the_one_who_read_it() -> None:
    cache = Cache()
    held, _ = cache.start("ann", [*SYSTEM, 7, 8])
    cache.prefixes.pin(held, len(SYSTEM))
    cache.prefixes.drop(held)

    assert cache.ask("bob", [*SYSTEM, 9]) == len(SYSTEM)


def test_a_whole_pinned_prompt_is_not_read_again() -> None:
    cache = Cache()
    cache.pin()

    assert cache.prefixes.slot_to_pin(len(SYSTEM)) is None


def test_a_partly_read_operators_prompt_is_of_use_already() -> None:
    cache = Cache()
    cache.pin(SYSTEM[:3])

    assert cache.ask("ann", [*SYSTEM, 9]) == 3


def test_the_operators_prompt_is_not_read_where_it_has_no_room() -> None:
    cache = Cache(slots=1, cells=8)
    cache.ask("ann", [1, 2, 3, 4, 5], answer=0)

    assert cache.prefixes.slot_to_pin(4) is None


# Which slot


def test_continuing_takes_the_slot_over() -> None:
    cache = Cache()
    first, _ = cache.start("ann", [1, 2, 3])
    cache.prefixes.rest(first)
    second, _ = cache.start("ann", [1, 2, 3, 4])

    assert second.index == first.index


def test_branching_keeps_what_was_branched_from() -> None:
    cache = Cache()
    cache.ask("ann", [1, 2, 3, 4, 5, 6])
    cache.ask("ann", [1, 2, 3, 9])

    assert cache.ask("ann", [1, 2, 3, 4, 5, 6, 7]) == 6


def test_a_branch_overwrites_another_slot_rather_than_what_it_came_from() -> None:
    cache = Cache(slots=2)
    cache.ask("ann", [1, 2, 3, 4, 5, 6])
    cache.ask("bob", [1, 2, 3])
    cache.ask("ann", [1, 2, 3, 9])

    assert cache.ask("ann", [1, 2, 3, 4, 5, 6, 7]) == 6


def test_a_branch_shares_the_cells_of_what_both_begin_with() -> None:
    cache = Cache()
    cache.ask("ann", [1, 2, 3, 4, 5, 6])
    cache.ask("ann", [1, 2, 3, 9])

    assert cache.prefixes.used_cells == 7


def test_cutting_a_branch_keeps_the_cells_of_the_other() -> None:
    cache = Cache()
    cache.ask("ann", [1, 2, 3, 4, 5, 6])
    held, _ = cache.start("ann", [1, 2, 3, 9])
    cache.prefixes.drop(held)

    assert (cache.prefixes.used_cells, cache.ask("ann", [1, 2, 3, 4, 5, 6, 7])) == (6, 6)


def test_with_one_slot_a_branch_overwrites_what_it_came_from() -> None:
    cache = Cache(slots=1)
    cache.ask("ann", [1, 2, 3, 4, 5, 6])

    assert (cache.ask("ann", [1, 2, 3, 9]), cache.prefixes.used_cells) == (3, 4)


def test_an_empty_slot_is_taken_before_anything_is_forgotten() -> None:
    cache = Cache(slots=3)
    cache.ask("ann", [1, 2, 3])
    cache.ask("bob", [1, 2, 3])
    cache.ask("eve", [1, 2, 3])

    assert [cache.ask(owner, [1, 2, 3, 4]) for owner in ("ann", "bob", "eve")] == [3, 3, 3]


def test_a_slot_that_holds_nothing_is_taken_before_an_older_one_that_does() -> None:
    cache = Cache(slots=2)
    cache.ask("bob", [1, 2, 3])
    failed, _ = cache.start("ann", [1, 2, 3])
    cache.prefixes.drop(failed)
    cache.ask("eve", [1, 2, 3])

    assert cache.ask("bob", [1, 2, 3, 4]) == 3


def test_the_slot_that_was_used_least_recently_is_given_away() -> None:
    cache = Cache(slots=3)
    for owner in ("ann", "bob", "eve"):
        cache.ask(owner, [1, 2, 3])
    cache.ask("ann", [1, 2, 3, 4])
    cache.ask("new", [9])

    assert [cache.ask(owner, [1, 2, 3, 4, 5]) for owner in ("ann", "eve")] == [4, 3]


def test_a_slot_counts_as_used_until_its_prompt_has_ended() -> None:
    cache = Cache(slots=2)
    long, _ = cache.start("ann", [1, 2, 3])
    cache.ask("bob", [1, 2, 3])
    cache.prefixes.rest(long)
    cache.ask("new", [9])

    assert cache.ask("ann", [1, 2, 3, 4]) == 3


def test_being_branched_from_counts_as_use() -> None:
    cache = Cache(slots=3)
    cache.ask("ann", [1, 2, 3, 4, 5, 6])
    cache.ask("bob", [1, 2, 3])
    branch, _ = cache.start("ann", [1, 2, 3, 9])
    cache.ask("new", [9])
    cache.prefixes.rest(branch)

    assert cache.ask("ann", [1, 2, 3, 4, 5, 6, 7]) == 6


# Room


def test_what_does_not_fit_beside_those_who_run_waits() -> None:
    cache = Cache(slots=2, cells=20)
    cache.start("ann", [1, 2, 3], answer=9)

    assert cache.prefixes.begin("bob", [1, 2, 3], 9) is None


def test_what_just_fits_does_not_wait() -> None:
    cache = Cache(slots=2, cells=20)
    cache.start("ann", [1, 2, 3], answer=9)

    assert cache.prefixes.begin("bob", [1, 2, 3], 8) is not None


def test_who_waits_takes_nothing_from_those_who_run() -> None:
    cache = Cache(slots=2, cells=20)
    held, _ = cache.start("ann", [1, 2, 3], answer=9)
    cache.prefixes.begin("bob", [1, 2, 3], 9)

    assert (held.tokens, cache.engine._tokens[held.index]) == ([1, 2, 3], [1, 2, 3])


def test_who_waits_takes_nothing_from_those_who_rest() -> None:
    cache = Cache(slots=3, cells=20)
    cache.ask("eve", [1, 2, 3])
    cache.start("ann", [1, 2, 3], answer=9)
    cache.prefixes.begin("bob", [1, 2, 3], 9)

    assert cache.ask("eve", [1, 2, 3, 4], answer=0) == 3


def test_who_waited_starts_when_a_slot_is_free() -> None:
    cache = Cache(slots=1)
    held, _ = cache.start("ann", [1, 2, 3])
    waits = cache.prefixes.begin("bob", [1, 2], 4)
    cache.prefixes.rest(held)

    assert (waits, cache.ask("bob", [1, 2])) == (None, 0)


def test_idle_slots_make_room_for_what_comes() -> None:
    cache = Cache(slots=3, cells=20)
    cache.ask("ann", [1] * 8, answer=0)
    cache.ask("bob", [1] * 8, answer=0)
    held, _ = cache.start("eve", [1] * 4, answer=8)
    cache.read(held, [5] * 8)

    assert cache.prefixes.used_cells == 20  # bob's eight stayed
    cache.prefixes.rest(held)
    assert (cache.ask("bob", [1] * 9, answer=0), cache.ask("ann", [1] * 9, answer=0)) == (8, 0)


def test_the_operators_prompt_is_forgotten_after_every_idle_slot() -> None:
    cache = Cache(slots=2, cells=20)
    cache.pin()
    cache.ask("ann", [1] * 8, answer=0)
    cache.ask("bob", [9] * 4, answer=12)

    assert cache.ask("eve", [*SYSTEM, 8], answer=0) == len(SYSTEM)


def test_the_operators_prompt_is_forgotten_where_a_prompt_needs_its_cells() -> None:
    cache = Cache(slots=1, cells=20)
    cache.pin()
    cache.ask("ann", [9] * 4, answer=16)

    assert cache.prefixes.used_cells == 4


def test_who_starts_from_the_operators_prompt_does_not_drive_it_out() -> None:
    cache = Cache(slots=1, cells=20)
    cache.pin()
    held, _ = cache.start("ann", [*SYSTEM, 9], answer=15)
    cache.read(held, [5] * 15)
    cache.prefixes.rest(held)

    assert (cache.ask("bob", [*SYSTEM, 9]), cache.prefixes.used_cells) == (len(SYSTEM), 5)


def test_forgetting_what_is_idle_gives_all_of_it_back() -> None:
    cache = Cache(slots=2)
    cache.pin()
    cache.ask("ann", [*SYSTEM, 9])
    cache.ask("bob", [1, 2, 9])
    held = cache.prefixes.idle_tokens
    cache.prefixes.forget_idle()

    assert (held, cache.prefixes.used_cells, any(cache.engine._tokens)) == (12, 0, False)


def test_forgetting_what_is_idle_leaves_alone_what_runs() -> None:
    cache = Cache(slots=2)
    cache.pin()
    held, _ = cache.start("ann", [*SYSTEM, 9])
    cache.prefixes.forget_idle()

    assert (held.tokens, cache.engine._tokens[held.index]) == ([*SYSTEM, 9], [*SYSTEM, 9])


# One sequence


def test_an_engine_with_one_sequence_continues_what_it_holds() -> None:
    cache = Cache(slots=1, kind=OneSequence)
    cache.ask("ann", [1, 2, 3, 4])

    assert (cache.ask("ann", [1, 2, 3, 9]), cache.ask("bob", [1, 2, 3, 9])) == (3, 0)


def test_an_engine_with_one_sequence_keeps_nothing_for_all() -> None:
    cache = Cache(slots=1, kind=OneSequence)
    held, _ = cache.start("ann", [*SYSTEM, 9])
    cache.prefixes.pin(held, len(SYSTEM))
    cache.prefixes.rest(held)

    assert (cache.prefixes.slot_to_pin(4), cache.ask("bob", [*SYSTEM, 9])) == (None, 0)


# Whatever happens, in whatever order

PROMPTS = st.lists(st.integers(1, 3), min_size=1, max_size=14)
CELLS = 40


class Bookkeeping(RuleBasedStateMachine):
    """Prompts of three clients begin, grow, are cut, rest and fail, as the step loop lets them."""

    @initialize(slots=st.integers(1, 4), spare=st.booleans())
    def make(self, slots: int, *, spare: bool) -> None:
        kind = EchoEngine if spare or slots > 1 else OneSequence
        self.cache = Cache(slots, CELLS, kind)
        self.prefixes = self.cache.prefixes
        self.running: list[tuple[Held, list[int]]] = []

    @property
    def all(self) -> list[Held]:
        pin = self.prefixes._pin
        return [*self.prefixes._slots, *([] if pin is None else [pin])]

    @rule(owner=st.sampled_from(["", "ann", "bob"]), prompt=PROMPTS, answer=st.integers(1, 20))
    def begin(self, owner: str, prompt: list[int], answer: int) -> None:
        pin = self.prefixes._pin
        running = [held for held, _ in self.running]
        own = [held for held in self.all if held.owner == owner and held not in running]
        usable = [*own, *([] if pin is None else [pin])]
        allowed = {cell for held in usable for cell in held.cells}
        best = max((common(held.tokens, prompt) for held in usable), default=0)
        before = {held.index: list(held.tokens) for held in running}
        tokens = min(len(prompt) + answer, CELLS)
        fits = sum(held.reserved for held in running) + tokens <= CELLS
        held = self.prefixes.begin(owner, prompt, tokens)
        assert (held is None) == (not fits or len(running) == len(self.prefixes._slots))
        if held is not None:
            assert held not in running
            assert held.tokens == prompt[: min(best, len(prompt) - 1)]
            assert set(held.cells) <= allowed
            self.running.append((held, prompt))
        assert before == {held.index: held.tokens for held in running}

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        held, prompt = data.draw(st.sampled_from(self.running))
        unread = prompt[len(held.tokens) :] or [9] * (held.reserved - len(held.tokens))
        if unread:
            self.cache.read(held, unread[: data.draw(st.integers(1, len(unread)))])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refuse_drafts(self, data: st.DataObject) -> None:
        held, prompt = data.draw(st.sampled_from(self.running))
        drafted = len(held.tokens) - len(prompt)
        if drafted > 0:
            self.prefixes.cut(held, len(held.tokens) - data.draw(st.integers(0, drafted)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, *, fails: bool) -> None:
        held, _ = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if fails:
            self.prefixes.drop(held)
        else:
            self.prefixes.rest(held)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        held, _ = data.draw(st.sampled_from(self.running))
        if held.tokens:
            self.prefixes.pin(held, data.draw(st.integers(1, len(held.tokens))))

    @precondition(lambda self: not self.running)
    @rule(tokens=PROMPTS, count=st.integers(1, 14))
    def read_pinned(self, tokens: list[int], count: int) -> None:
        slot = self.prefixes.slot_to_pin(len(tokens))
        if slot is not None:
            self.cache.read(slot, tokens[len(slot.tokens) :][:count])
            self.prefixes.pin(slot, len(slot.tokens))
            self.prefixes.drop(slot)

    @rule()
    def forget_idle(self) -> None:
        self.prefixes.forget_idle()
        running = {cell for held, _ in self.running for cell in held.cells}
        assert (self.prefixes.idle_tokens, self.prefixes.used_cells) == (0, len(running))

    @invariant()
    def the_engine_holds_what_the_books_say(self) -> None:
        held = {held.index: held.tokens for held in self.all}
        assert held == dict(enumerate(self.cache.engine._tokens[: len(held)]))

    @invariant()
    def every_cell_is_counted_once(self) -> None:
        cells = {cell for held in self.all for cell in held.cells}
        assert self.prefixes.used_cells == len(cells) <= CELLS

    @invariant()
    def a_cell_holds_one_token_at_one_position(self) -> None:
        stands: dict[int, tuple[int, int]] = {}
        for held in self.all:
            for position, (cell, token) in enumerate(zip(held.cells, held.tokens, strict=True)):
                assert stands.setdefault(cell, (position, token)) == (position, token)

    @invariant()
    def all_that_run_can_grow_to_what_they_reserved(self) -> None:
        reserved = [held.reserved for held, _ in self.running]
        assert sum(reserved) <= CELLS
        missing = sum(held.reserved - len(held.tokens) for held, _ in self.running)
        assert missing <= CELLS - self.prefixes.used_cells


def common(first: list[int], second: list[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
