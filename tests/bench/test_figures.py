"""From arrivals to figures."""

import pytest

from edged.bench.figures import (
    Answer,
    Arrival,
    Figures,
    Gaps,
    Spread,
    figures,
    overall,
    percentile,
    ratios,
)


def answer(
    *arrivals: tuple[float, int], asked_s: float = 0.0, done_s: float = 3.0, tokens: int = 21
) -> Answer:
    return Answer(asked_s, tuple(Arrival(*each) for each in arrivals), done_s, 100, tokens)


def test_one_client_is_measured_from_its_question_to_its_end():
    found = figures([answer((1.0, 1), (2.0, 11), (3.0, 21))])

    assert found == Figures(
        prefill_tokens_per_s=100.0,
        decode_tokens_per_s=10.0,
        aggregate_tokens_per_s=7.0,
        first_token_ms=1000.0,
        gap_ms=Gaps(100.0, 100.0),
    )


def test_all_clients_together_are_measured_from_the_first_question_to_the_last_end():
    early = answer((1.0, 1), done_s=2.0, tokens=11)
    late = answer((2.0, 1), asked_s=0.5, done_s=4.0, tokens=21)

    found = figures([early, late])

    assert found.aggregate_tokens_per_s == 32 / 4
    assert found.prefill_tokens_per_s == 200 / 2


def test_what_was_cached_was_not_read():
    kept = Answer(0.0, (Arrival(1.0, 1),), 2.0, 100, 2, cached_tokens=60)

    assert figures([kept]).prefill_tokens_per_s == 40.0


def test_tokens_that_come_together_share_the_time_of_their_arrival():
    assert answer((1.0, 1), (1.5, 6), (1.7, 7)).gaps_ms == pytest.approx([100.0] * 5 + [200.0])


def test_an_arrival_without_a_new_token_is_no_gap():
    assert answer((1.0, 1), (2.0, 1)).gaps_ms == []


def test_a_stop_token_without_text_counts_as_decoded():
    assert answer((1.0, 1), done_s=2.0, tokens=11).decode_tokens_per_s == 10.0


@pytest.mark.parametrize("short", [answer(), answer((3.0, 1), tokens=1)])
def test_an_answer_of_hardly_a_token_has_no_speed(short: Answer):
    found = figures([short])

    assert found.decode_tokens_per_s is None
    assert found.gap_ms is None
    assert found.first_token_ms == 3000.0


def test_rounds_are_summed_up_by_their_medians_and_by_all_gaps_together():
    slow, fast = [answer((1.0, 1), (3.0, 3), tokens=3)], [answer((1.0, 1), (3.0, 21))]

    found = overall([slow, fast, fast])

    assert found.decode_tokens_per_s == 10.0
    assert found.gap_ms == Gaps(100.0, 1000.0)


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_a_value_that_was_seen(percent: float, value: float):
    assert percentile([float(each) for each in reversed(range(1, 101))], percent) == value


def test_ratios_are_taken_pair_by_pair():
    assert ratios([10.0, 30.0, 9.0], [10.0, 10.0, 10.0]) == Spread(0.9, 1.0, 3.0)


def test_a_pair_without_a_figure_has_no_ratio():
    assert ratios([10.0, None, 5.0], [5.0, 1.0, None]) == Spread(2.0, 2.0, 2.0)
    assert ratios([None], [1.0]) is None
