"""Watermarks: how little memory is too little, and how soon it will be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.throttle.watermarks import MIB, Fall, marks

STEPS = 6
BYTES = st.integers(0, 2**40)


def test_the_first_mark_is_a_share_of_the_memory() -> None:
    assert marks(4096 * MIB, None, STEPS).low_bytes == pytest.approx(245.76 * MIB, abs=1)


def test_on_a_small_board_the_marks_do_not_shrink_below_what_can_be_noticed_in_time() -> None:
    levels = marks(512 * MIB, None, STEPS)

    assert (levels.low_bytes, levels.critical_bytes) == (128 * MIB, 48 * MIB)


def test_on_a_large_machine_the_marks_stay_those_that_a_small_group_can_keep() -> None:
    levels = marks(64 * 1024 * MIB, None, STEPS)

    assert (levels.low_bytes, levels.critical_bytes) == (512 * MIB, 96 * MIB)


def test_steps_lie_at_equal_distances_from_low_down_to_critical() -> None:
    levels = marks(8000 * MIB, None, STEPS)

    assert levels.of(1) == 480 * MIB
    assert levels.of(6) == pytest.approx(96 * MIB, abs=STEPS)
    assert levels.of(2) - levels.of(3) == levels.of(4) - levels.of(5)


@pytest.mark.parametrize(("mib", "called"), [(481, 0), (479, 1), (330, 2), (180, 4), (95, 6)])
def test_what_is_called_for_is_the_lowest_mark_not_reached(mib: int, called: int) -> None:
    assert marks(8000 * MIB, None, STEPS).called(mib * MIB) == called


def test_where_little_was_left_by_the_load_itself_the_marks_are_lower() -> None:
    levels = marks(8000 * MIB, 240 * MIB, STEPS)

    assert (levels.low_bytes, levels.critical_bytes) == (120 * MIB, 24 * MIB)


def test_where_next_to_nothing_was_left_they_stop_short_of_nothing() -> None:
    levels = marks(8000 * MIB, 10 * MIB, STEPS)

    assert (levels.low_bytes, levels.critical_bytes) == (32 * MIB, 16 * MIB)


def test_a_fall_between_two_readings_is_taken_to_go_on_for_a_second() -> None:
    fall = Fall()
    fall.ahead(0.0, 1000)

    assert fall.ahead(0.5, 900) == 700


def test_a_fall_over_two_intervals_is_taken_to_go_on_for_two_seconds() -> None:
    fall = Fall()
    fall.ahead(0.0, 1000)
    fall.ahead(0.5, 900)

    assert fall.ahead(1.0, 800) == 400


def test_memory_that_comes_back_is_not_taken_to_go_on_doing_so() -> None:
    fall = Fall()
    fall.ahead(0.0, 1000)

    assert fall.ahead(0.5, 1100) == 1100


def test_two_readings_at_nearly_the_same_time_are_no_fall() -> None:
    fall = Fall()
    fall.ahead(0.0, 1000)

    assert fall.ahead(0.01, 900) == 900


def test_a_limit_that_was_just_set_is_no_fall() -> None:
    fall = Fall()
    fall.ahead(0.0, 1000, "MemAvailable")

    assert fall.ahead(0.5, 100, "memory.max of /edged") == 100


def test_a_fall_goes_on_past_the_point_where_another_limit_is_nearer() -> None:
    fall = Fall()
    fall.ahead(0.0, 1000, "MemAvailable")
    fall.ahead(0.5, 900, "MemAvailable")

    assert fall.ahead(1.0, 850, "memory.max of /edged") == 450


def test_what_was_forgotten_is_not_compared() -> None:
    fall = Fall()
    fall.ahead(0.0, 1000)
    fall.forget()

    assert fall.ahead(0.5, 100) == 100


@given(BYTES, st.none() | BYTES)
def test_marks_are_ordered_and_above_nothing(total_bytes: int, usual_bytes: int | None) -> None:
    levels = marks(total_bytes, usual_bytes, STEPS)

    all_of_them = [levels.of(step) for step in range(1, STEPS + 1)]
    assert all_of_them == sorted(all_of_them, reverse=True)
    assert all_of_them[-1] >= 16 * MIB


@given(BYTES)
def test_what_is_usual_calls_for_nothing_unless_it_is_next_to_nothing(usual_bytes: int) -> None:
    called = marks(8000 * MIB, usual_bytes, STEPS).called(usual_bytes)

    assert called == 0 or usual_bytes < 32 * MIB
