"""Choosing tokens: reproducible, within what the filters leave, against a naive reference."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.protocol import Grammar, Logits
from edged.engine.sampling import REPEAT_WINDOW_TOKENS, Sampler
from edged.errors import EngineFailed
from edged.messages import Sampling

OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}

# Halves, so that there are ties.
logit_lists = st.lists(st.integers(-20, 20).map(lambda n: n / 2), min_size=1, max_size=40)
seeds = st.integers(0, 2**53 - 1)


def sampler(
    temperature: float = 1.0, seed: int = 1, grammar: Grammar | None = None, **changes: Any
) -> Sampler:
    sampling = Sampling(max_tokens=1, temperature=temperature, seed=seed, **{**OFF, **changes})
    return Sampler(sampling, grammar)


class OneOf:
    """A grammar that allows some tokens, always the same; it remembers what it was told."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = allowed
        self.accepted: list[int] = []
        self.masks = 0

    def allows(self, token: int) -> bool:
        return token in self.allowed

    def mask(self, logits: Logits) -> Logits:
        self.masks += 1
        left = np.full_like(logits, -np.inf)
        for token in self.allowed:
            left[token] = logits[token]
        return left

    def accept(self, token: int) -> None:
        assert token in self.allowed
        self.accepted.append(token)

    def close(self) -> None:
        pass


def row(*logits: float) -> Logits:
    return np.array(logits, dtype=np.float32)


def odds(logits: list[float], temperature: float = 1.0) -> list[float]:
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def left_by_filters(logits: list[float], top_k: int, top_p: float, min_p: float) -> list[int]:
    """The token ids that may be drawn, straight from the filters' definitions."""
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    ranked = ranked[: top_k or None]
    shares = odds([logits[token] for token in ranked])
    left, total = [], 0.0
    for token, share in zip(ranked, shares, strict=True):
        # What is this near to a bound falls to either side by the last digit: left in.
        if (total >= top_p + 1e-9 and top_p < 1) or share < min_p * shares[0] - 1e-9:
            break
        left.append(token)
        total += share
    return left


@given(logit_lists, seeds)
@settings(max_examples=100)
def test_temperature_zero_takes_the_largest_logit(logits: list[float], seed: int) -> None:
    assert sampler(0.0, seed).pick(row(*logits)) == logits.index(max(logits))


@given(logit_lists, seeds, st.floats(0.1, 2))
@settings(max_examples=200)
def test_top_k_1_takes_the_largest_logit_at_any_temperature(
    logits: list[float], seed: int, temperature: float
) -> None:
    assert sampler(temperature, seed, top_k=1).pick(row(*logits)) == logits.index(max(logits))


@given(logit_lists, seeds)
@settings(max_examples=100)
def test_a_tiny_top_p_takes_the_largest_logit(logits: list[float], seed: int) -> None:
    assert sampler(seed=seed, top_p=1e-6).pick(row(*logits)) == logits.index(max(logits))


@given(
    logit_lists,
    seeds,
    st.integers(0, 50),
    st.floats(0.05, 1),
    st.floats(0, 0.95),
    st.floats(0.1, 2),
)
@settings(max_examples=200)
def test_every_pick_is_among_what_the_filters_leave(
    logits: list[float], seed: int, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    left = left_by_filters(logits, top_k, top_p, min_p)
    picking = sampler(temperature, seed, top_k=top_k, top_p=top_p, min_p=min_p)

    assert {picking.pick(row(*logits)) for _ in range(10)} <= set(left)


@pytest.mark.parametrize(
    "filters",
    [{"top_k": 3}, {"top_p": 0.75}, {"min_p": 0.3}, {"top_k": 4, "top_p": 0.85, "min_p": 0.1}],
)
def test_everything_that_the_filters_leave_is_picked_in_the_long_run(
    filters: dict[str, Any],
) -> None:
    logits = [0.0, 2.0, 1.0, 1.5, -1.0]
    left = left_by_filters(logits, **({"top_k": 0, "top_p": 1.0, "min_p": 0.0} | filters))
    picking = sampler(**filters)

    assert {picking.pick(row(*logits)) for _ in range(500)} == set(left)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_about_as_often_as_their_probability_says(temperature: float) -> None:
    logits = [1.0, 0.0, 2.0, -1.0]
    picking = sampler(temperature, seed=7)
    counts = Counter(picking.pick(row(*logits)) for _ in range(4000))

    shares = [counts[token] / 4000 for token in range(4)]
    assert shares == pytest.approx(odds(logits, temperature), abs=0.03)


@given(st.lists(logit_lists, min_size=1, max_size=10), seeds)
@settings(max_examples=50)
def test_the_same_seed_gives_the_same_picks(rows: list[list[float]], seed: int) -> None:
    one, other = sampler(seed=seed), sampler(seed=seed)

    assert [one.pick(row(*each)) for each in rows] == [other.pick(row(*each)) for each in rows]


def test_another_seed_gives_other_picks() -> None:
    def picks(seed: int) -> list[int]:
        picking = sampler(seed=seed)
        return [picking.pick(np.zeros(1000, dtype=np.float32)) for _ in range(8)]

    assert picks(1) != picks(2)


def test_each_token_takes_one_draw_whatever_the_logits_were_before() -> None:
    one, other = sampler(seed=3), sampler(seed=3)
    one.pick(row(0, 0, 0))
    other.pick(row(9, 0, 0, 0, 0, 0))
    flat = np.zeros(1000, dtype=np.float32)

    assert one.pick(flat) == other.pick(flat)


@pytest.mark.parametrize("logits", [(1.0, 3.0, 2.0), (-5.0, 0.0, -1.0), (-3.0, -1.0, -2.0)])
@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_a_temperature_near_zero_is_greedy(
    temperature: float, logits: tuple[float, float, float]
) -> None:
    assert sampler(temperature).pick(row(*logits)) == 1


def test_a_repetition_is_made_less_likely() -> None:
    picking = sampler(0.0, repeat_penalty=1.2)

    assert [picking.pick(row(2.0, 1.9)) for _ in range(3)] == [0, 1, 0]


def test_a_repetition_with_a_negative_logit_is_made_less_likely() -> None:
    picking = sampler(0.0, repeat_penalty=1.2)

    assert [picking.pick(row(-1.0, -1.1)) for _ in range(2)] == [0, 1]


def test_a_repeat_penalty_below_1_makes_a_repetition_more_likely() -> None:
    picking = sampler(0.0, repeat_penalty=0.5)

    assert [picking.pick(row(*logits)) for logits in ((2.0, 0.0), (2.0, 3.0))] == [0, 0]


@pytest.mark.parametrize(("between", "picked"), [(-1, 2), (0, 0)])
def test_a_repetition_is_forgotten_when_it_has_left_the_window(between: int, picked: int) -> None:
    picking = sampler(0.0, repeat_penalty=1.5)
    picking.pick(row(9.0, 0.0, 0.0))
    for _ in range(REPEAT_WINDOW_TOKENS + between):
        picking.pick(row(0.0, 9.0, 0.0))

    assert picking.pick(row(2.0, 0.0, 1.9)) == picked


def test_the_engines_logits_are_left_as_they_are() -> None:
    picking = sampler(repeat_penalty=1.5, top_k=2, top_p=0.9, min_p=0.1)
    logits = row(1.0, 2.0, 3.0)
    for _ in range(3):
        picking.pick(logits)

    assert logits.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_of_no_probability_is_never_picked(temperature: float) -> None:
    picking = sampler(temperature)
    logits = row(-math.inf, 0.0, -math.inf, 1.0)

    assert {picking.pick(logits) for _ in range(50)} <= {1, 3}


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (math.inf, 1.0), (-math.inf, -math.inf)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_end_the_prompt(
    temperature: float, bad: tuple[float, float]
) -> None:
    with pytest.raises(EngineFailed, match="not a number"):
        sampler(temperature).pick(row(*bad))


def test_a_token_that_the_grammar_allows_is_the_one_picked_without_it() -> None:
    grammar = OneOf(*range(5))
    free, held = sampler(seed=3), sampler(seed=3, grammar=grammar)
    logits = row(0.0, 0.5, 1.0, 0.2, 0.9)

    assert [held.pick(logits) for _ in range(20)] == [free.pick(logits) for _ in range(20)]
    assert grammar.masks == 0


def test_of_what_the_grammar_allows_the_likeliest_is_taken_at_temperature_zero() -> None:
    assert sampler(0.0, grammar=OneOf(0, 2)).pick(row(1.0, 9.0, 2.0)) == 2


@given(logit_lists, seeds, st.integers(0, 5), st.floats(0.1, 1), st.floats(0, 0.9), st.data())
@settings(max_examples=200)
def test_only_what_the_grammar_allows_is_picked(
    logits: list[float], seed: int, top_k: int, top_p: float, min_p: float, data: st.DataObject
) -> None:
    allowed = data.draw(st.sets(st.sampled_from(range(len(logits))), min_size=1))
    grammar = OneOf(*allowed)
    picking = sampler(1.0, seed, grammar, top_k=top_k, top_p=top_p, min_p=min_p)
    picked = [picking.pick(row(*logits)) for _ in range(5)]

    assert {*picked} <= allowed
    assert grammar.accepted == picked


def test_a_refused_token_costs_no_further_draw() -> None:
    grammar = OneOf(0)
    free, held = sampler(seed=5), sampler(seed=5, grammar=grammar)
    logits = row(*([0.0] * 30))
    first = [free.pick(logits) for _ in range(20)]
    held_first = held.pick(logits)
    grammar.allowed = tuple(range(30))

    assert held_first == 0 != first[0]
    assert [held.pick(logits) for _ in range(19)] == first[1:]


def test_a_top_k_without_allowed_tokens_is_drawn_again_from_the_allowed() -> None:
    picking = sampler(seed=2, grammar=OneOf(3, 4), top_k=2)

    assert {picking.pick(row(9.0, 8.0, 7.0, 0.0, 0.0)) for _ in range(30)} == {3, 4}


def test_what_is_picked_under_a_grammar_counts_as_a_repetition() -> None:
    picking = sampler(0.0, grammar=OneOf(0, 1), repeat_penalty=1.2)

    assert [picking.pick(row(2.0, 1.9, 5.0)) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_that_no_token_fits_ends_the_prompt(temperature: float) -> None:
    with pytest.raises(EngineFailed, match="no token of the model fits"):
        sampler(temperature, grammar=OneOf()).pick(row(1.0, 2.0))
