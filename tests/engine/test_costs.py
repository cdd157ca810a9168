"""What steps take, learnt while they run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.costs import FIRST_STEP_S, StepCosts


def measured(**steps: float) -> StepCosts:
    """Costs after one step of each width: ``w4=0.1`` is a step of four tokens."""
    costs = StepCosts()
    for width, took_s in steps.items():
        costs.learn_decode(int(width.removeprefix("w")), took_s)
    return costs


# Widths


def test_before_anything_was_measured_nothing_is_known() -> None:
    assert StepCosts().decode_s(1) is None


def test_a_width_that_was_measured_takes_that_long() -> None:
    assert measured(w1=0.1, w4=0.2).decode_s(4) == 0.2


@pytest.mark.parametrize(("width", "takes_s"), [(2, 0.2), (3, 0.3), (5, 0.45), (7, 0.55)])
def test_a_width_between_two_that_were_measured_is_between_them(width: int, takes_s: float) -> None:
    assert measured(w1=0.1, w4=0.4, w8=0.6).decode_s(width) == pytest.approx(takes_s)


def test_beyond_the_widest_a_step_takes_longer_in_proportion() -> None:
    assert measured(w1=0.1, w8=0.2).decode_s(12) == pytest.approx(0.3)


def test_below_the_narrowest_no_step_is_faster() -> None:
    assert measured(w4=0.2, w8=0.3).decode_s(1) == 0.2


def test_widths_may_be_measured_in_any_order() -> None:
    assert measured(w8=0.6, w1=0.1, w4=0.4).decode_s(6) == pytest.approx(0.5)


# Drift


def test_one_slow_step_moves_an_estimate_by_less_than_half() -> None:
    costs = measured(w1=0.1)
    costs.learn_decode(1, 0.2)

    assert 0.1 < (costs.decode_s(1) or 0) < 0.15


def test_a_machine_that_stays_slower_is_believed() -> None:
    costs = measured(w1=0.1)
    for _ in range(20):
        costs.learn_decode(1, 0.2)

    assert costs.decode_s(1) == pytest.approx(0.2, rel=0.01)


def test_what_makes_one_width_slower_makes_the_others_slower_too() -> None:
    costs = measured(w1=0.1, w4=0.2)
    for _ in range(20):
        costs.learn_decode(1, 0.3)

    assert 0.2 < (costs.decode_s(4) or 0) <= 0.6


def test_steps_that_only_repeat_what_is_known_move_nothing() -> None:
    costs = measured(w1=0.1, w4=0.2)
    for _ in range(20):
        costs.learn_decode(4, 0.2)

    assert (costs.decode_s(1), costs.decode_s(4)) == (0.1, 0.2)


WIDTHS = (1, 4, 8)
TRUE_S = {1: 0.06, 4: 0.16, 8: 0.32}


@given(st.tuples(*[st.floats(0.4, 2.5)] * 3), st.permutations(WIDTHS))
@settings(deadline=None)
def test_what_was_measured_wrong_at_first_is_put_right_by_the_steps_that_follow(
    errors: tuple[float, ...], order: list[int]
) -> None:
    costs = StepCosts()
    for width, error in zip(WIDTHS, errors, strict=True):
        costs.learn_decode(width, TRUE_S[width] * error)
    for width in order * 40:
        costs.learn_decode(width, TRUE_S[width])

    assert {width: costs.decode_s(width) for width in WIDTHS} == pytest.approx(TRUE_S, rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(1e-4, 10)), min_size=1, max_size=60))
def test_an_estimate_is_a_time_whatever_was_measured(steps: list[tuple[int, float]]) -> None:
    costs = StepCosts()
    for width, took_s in steps:
        costs.learn_decode(width, took_s)

    assert all(0 < (costs.decode_s(width) or 0) < 1e6 for width in range(1, 20))


# Prompts, and predictions


def test_prompts_are_learnt_by_the_token() -> None:
    costs = StepCosts()
    costs.learn_prefill(50, 1.0)

    assert costs.prefill_s_per_token == 0.02


def test_a_prompts_speed_follows_the_machine() -> None:
    costs = StepCosts()
    for _ in range(20):
        costs.learn_prefill(50, 1.0)
    for _ in range(20):
        costs.learn_prefill(50, 2.0)

    assert costs.prefill_s_per_token == pytest.approx(0.04, rel=0.01)


@pytest.mark.parametrize(("prompt_tokens", "width"), [(8, 0), (0, 1), (8, 1)])
def test_the_first_step_is_given_time(prompt_tokens: int, width: int) -> None:
    assert StepCosts().predict_s(prompt_tokens, width) == FIRST_STEP_S


def test_a_prompt_is_given_time_while_only_decoding_was_measured() -> None:
    assert measured(w1=0.1).predict_s(8, 1) == FIRST_STEP_S


def test_a_step_takes_what_its_prompts_and_its_answers_take() -> None:
    costs = measured(w1=0.1, w3=0.2)
    costs.learn_prefill(50, 1.0)

    assert [costs.predict_s(10, 0), costs.predict_s(0, 3), costs.predict_s(10, 3)] == [
        pytest.approx(0.2),
        pytest.approx(0.2),
        pytest.approx(0.4),
    ]
