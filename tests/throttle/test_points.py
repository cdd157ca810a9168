"""Operating points: what a budget of watts buys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.hardware.board import Board, Point, Stage
from edged.throttle.points import LEAST_DUTY, Operations

POINTS = (
    Point(0, 2.2, 0, 0),
    Point(1, 3.4, 0.55, 0.26),
    Point(2, 4.3, 0.88, 0.51),
    Point(3, 5.0, 0.98, 0.76),
    Point(4, 5.6, 1, 1),
)
BOARD = Board(
    zone="cpu-thermal",
    limit_c=80,
    critical_c=110,
    stages=(Stage(2, 12), Stage(10, 300)),
    worst_r_k_per_w=15,
    points=POINTS,
    min_mhz=1500,
    max_mhz=2400,
)


@pytest.mark.parametrize("has_clock", [True, False])
def test_with_watts_enough_all_threads_run_at_full_clock(has_clock: bool) -> None:
    best = Operations(BOARD, has_clock=has_clock).best("decode", 10)

    assert best is not None
    assert (best.threads, best.duty, best.speed) == (4, 1, 1)


def test_a_lower_clock_is_taken_before_a_rest() -> None:
    best = Operations(BOARD, has_clock=True).best("decode", 4.0)

    assert best is not None
    assert best.mhz is not None
    assert (best.mhz < 2400, best.duty) == (True, 1.0)


def test_power_goes_with_the_cube_of_the_clock_and_decoding_with_its_third_root() -> None:
    best = Operations(BOARD, has_clock=True).best("decode", 3.04)

    assert best is not None
    assert best.mhz == 1500
    assert best.watts == pytest.approx(2.2 + 3.4 * (1500 / 2400) ** 3)
    assert best.speed == pytest.approx((1500 / 2400) ** 0.3)


def test_without_the_clock_fewer_threads_are_taken_first() -> None:
    best = Operations(BOARD, has_clock=False).best("decode", 5.0)

    assert best is not None
    assert (best.threads, best.duty) == (3, 1.0)


def test_rests_take_off_what_working_draws_above_idle() -> None:
    best = Operations(BOARD, has_clock=False).best("decode", 2.8)

    assert best is not None
    assert best.threads == 1
    assert best.duty == pytest.approx(0.5)
    assert best.watts == pytest.approx(2.8)


def test_a_budget_next_to_idle_buys_nothing() -> None:
    assert Operations(BOARD, has_clock=True).best("decode", 2.2) is None


def test_no_clock_above_that_of_the_other_phase() -> None:
    best = Operations(BOARD, has_clock=True).best("prefill", 10, max_mhz=1800)

    assert best is not None
    assert best.mhz == 1800


def test_a_point_that_draws_more_and_does_less_is_never_taken() -> None:
    board = Board(**{**vars(BOARD), "points": (*POINTS[:3], Point(3, 5.0, 0.8, 0.76), POINTS[4])})
    operations = Operations(board, has_clock=False)

    best = [operations.best("decode", watts / 10) for watts in range(25, 60)]
    assert 3 not in {each.threads for each in best if each is not None}


@given(st.floats(-50, 50), st.sampled_from(["decode", "prefill"]), st.booleans())
def test_no_budget_is_ever_passed(budget_w: float, phase: str, has_clock: bool) -> None:
    best = Operations(BOARD, has_clock=has_clock).best(phase, budget_w)  # type: ignore[arg-type]

    if best is not None:
        assert best.watts <= budget_w + 1e-9
        assert best.duty >= LEAST_DUTY


@given(st.floats(2.5, 6), st.floats(0, 1))
def test_more_watts_never_buy_less(budget_w: float, more_w: float) -> None:
    operations = Operations(BOARD, has_clock=True)
    less, more = operations.best("decode", budget_w), operations.best("decode", budget_w + more_w)

    assert less is not None
    assert more is not None
    assert more.speed >= less.speed
