"""Drafts are what followed before, and are made where they pay."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.lookup import LONG_MATCH_TOKENS, Draft, Lookup, Speculation

# What follows is what was found


def draft(text: str, most: int = 100) -> str:
    found = Lookup([ord(letter) for letter in text]).draft(most)
    return "".join(map(chr, found.tokens)) if found else ""


def test_a_draft_is_what_followed() -> None:
    assert draft("one two three, one two", most=6) == " three"


def test_a_draft_follows_the_last_time_of_several() -> None:
    assert draft("the cat, the dog, the", most=4) == " dog"


def test_a_draft_is_no_longer_than_asked_for() -> None:
    assert draft("abcdefgh abc", most=2) == "de"


@pytest.mark.parametrize("most", [0, -1])
def test_where_there_is_no_room_nothing_is_drafted(most: int) -> None:
    assert draft("abcdefgh abc", most) == ""


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "abcd", "ab ab"])
def test_where_three_tokens_did_not_stand_before_nothing_is_drafted(text: str) -> None:
    assert draft(text) == ""


def test_a_draft_may_reach_into_what_it_follows() -> None:
    assert draft("abcabc") == "abc"


def test_tokens_that_come_one_by_one_are_found_too() -> None:
    lookup = Lookup([1, 2, 3, 4])
    for token in (9, 1, 2, 3):
        lookup.add(token)

    assert lookup.draft(2) == Draft([4, 9], matched=3)


@given(st.lists(st.integers(1, 3), max_size=60), st.integers(0, 8), st.integers(0, 60))
def test_a_draft_is_the_latest_continuation_and_knows_how_much_agreed(
    tokens: list[int], most: int, prompt: int
) -> None:
    lookup = Lookup(tokens[:prompt])
    for token in tokens[prompt:]:
        lookup.add(token)
    places = [at for at in range(3, len(tokens)) if tokens[at - 3 : at] == tokens[-3:]]
    expected = None
    if places and most:
        at = places[-1]
        agreeing = (n for n in range(at, 2, -1) if tokens[at - n : at] == tokens[-n:])
        expected = Draft(tokens[at : at + most], min(next(agreeing), LONG_MATCH_TOKENS))

    assert lookup.draft(most) == expected


# How much of it is tried

Costs = Callable[[int], float]
"""Seconds of a step of so many tokens."""


def proportional(width: int) -> float:
    return 0.1 * width


def bandwidth_bound(width: int) -> float:
    return 0.1 + 0.002 * width


def compute_bound(width: int) -> float:
    """2 cores and the shape of Phi-3-mini: whole blocks of the kernels cost little more."""
    return {1: 0.061, 2: 0.095, 3: 0.128, 4: 0.162}.get(width, 0.0395 * width)


@dataclass
class Outcome:
    tokens: int
    took_s: float
    drafted: int
    drafted_late: int
    """In the second half."""

    def speed(self, costs: Costs) -> float:
        """Against steps without drafts."""
        return self.tokens * costs(1) / self.took_s


def decode(
    costs: Costs,
    accepted: Iterator[int],
    tokens: int = 400,
    matched: int = LONG_MATCH_TOKENS,
    speculation: Speculation | None = None,
) -> Outcome:
    """Decode so many tokens; of each draft as many come true as ``accepted`` says, at most."""
    speculation = speculation or Speculation()
    done = Outcome(0, 0.0, 0, 0)
    while done.tokens < tokens:
        found = Draft([0] * min(7, tokens - done.tokens), matched)
        count = speculation.width(found, lambda more: costs(1 + more))
        hits = min(count, next(accepted))
        took_s = costs(1 + count)
        speculation.spend(took_s, (1 + hits) * costs(1) if count else took_s)
        if count:
            speculation.learn(Draft(found.tokens[:count], matched), hits)
        done.drafted_late += count if done.tokens > tokens // 2 else 0
        done = Outcome(
            done.tokens + hits + 1, done.took_s + took_s, done.drafted + count, done.drafted_late
        )
    return done


def test_drafts_that_come_true_are_made_where_a_wider_step_costs_little() -> None:
    assert decode(bandwidth_bound, repeat(7)).speed(bandwidth_bound) > 5


def test_drafts_that_come_true_are_made_where_computing_is_the_limit() -> None:
    assert decode(compute_bound, repeat(7)).speed(compute_bound) > 1.3


def test_drafts_after_a_short_match_are_found_to_come_true() -> None:
    assert decode(bandwidth_bound, repeat(7), matched=3).speed(bandwidth_bound) > 4


def test_no_draft_is_made_where_a_wider_step_takes_as_much_longer() -> None:
    assert decode(proportional, repeat(7)).drafted == 0


def test_no_draft_is_made_any_more_where_none_comes_true() -> None:
    assert decode(compute_bound, repeat(0), tokens=4000).drafted_late == 0


def test_a_draft_is_made_as_wide_as_it_pays() -> None:
    """Four tokens take as long as one, and the fifth as long as all of them."""
    blocks = Speculation().width(
        Draft([0] * 7, LONG_MATCH_TOKENS), lambda more: 0.1 * (1 + more // 4)
    )

    assert blocks == 3


def test_no_more_than_was_found_is_tried() -> None:
    assert Speculation().width(Draft([0, 0], LONG_MATCH_TOKENS), lambda _more: 0.1) == 2


def test_what_short_matches_wasted_does_not_count_against_long_ones() -> None:
    speculation = Speculation()
    decode(bandwidth_bound, repeat(0), matched=3, tokens=2000, speculation=speculation)
    later = decode(bandwidth_bound, repeat(7), speculation=speculation)

    assert later.speed(bandwidth_bound) > 4


def test_drafts_that_only_begin_well_do_not_cost_more_than_their_share() -> None:
    """The first token always comes true, so that wide drafts go on looking worth it."""

    def costs(width: int) -> float:
        return 1 + sum([0.78, 1.31, 0.67, 0, 0, 1.1, 1.11][: width - 1])

    assert decode(costs, repeat(1), tokens=600).speed(costs) > 1 / 1.03


def test_answers_beside_it_are_not_held_up_for_one_that_repeats() -> None:
    """Alone it would draft; but then seven others would wait for what they do not get."""
    speculation, found = Speculation(), Draft([0] * 7, LONG_MATCH_TOKENS)

    def cost_s(width: int) -> Costs:
        return lambda more: compute_bound(width + more)

    assert (speculation.width(found, cost_s(1)) > 0, speculation.width(found, cost_s(8), 7)) == (
        True,
        0,
    )


STEPS = st.lists(st.floats(0, 1.5), min_size=7, max_size=7)


@given(STEPS, st.lists(st.integers(0, 7), min_size=1, max_size=40), st.sampled_from([3, 5, 16]))
@settings(deadline=None, max_examples=200)
def test_drafting_never_costs_more_than_its_share_whatever_comes_true(
    steps: list[float], accepted: list[int], matched: int
) -> None:
    """Any costs of wider steps, up to one and a half plain ones a token."""

    def costs(width: int) -> float:
        return 1 + sum(steps[: width - 1])

    def forever() -> Iterator[int]:
        while True:
            yield from accepted

    assert decode(costs, forever(), 300, matched).speed(costs) > 1 / 1.03


@given(STEPS, st.data())
@settings(deadline=None, max_examples=100)
def test_drafting_never_costs_more_than_its_share_when_luck_turns_against_it(
    steps: list[float], data: st.DataObject
) -> None:
    """Everything comes true until the drafts are wide, then nothing."""

    def costs(width: int) -> float:
        return 1 + sum(steps[: width - 1])

    turns_at = data.draw(st.integers(0, 60))

    def luck() -> Iterator[int]:
        yield from repeat(7, turns_at)
        yield from repeat(0)

    assert decode(costs, luck(), 600).speed(costs) > 1 / 1.03
