"""The observer: what it makes of readings, on boards that are like its model and on others."""

import math
import random

import pytest

from edged.hardware.board import Stage
from edged.throttle.observer import GAIN_BOUNDS, Observer

STAGES = (Stage(2, 12), Stage(10, 300))
STEP_S = 0.5


class TwoStages:
    """A board, computed apart from the observer."""

    def __init__(self, ambient_c: float, watts: float, r: tuple[float, float] = (2, 10)) -> None:
        self.ambient_c, self.r = ambient_c, r
        self.rises = [watts * each for each in r]

    def step(self, watts: float) -> float:
        for index, (r, tau_s) in enumerate(zip(self.r, (12, 300), strict=True)):
            keep = math.exp(-STEP_S / tau_s)
            self.rises[index] = keep * self.rises[index] + (1 - keep) * r * watts
        return self.ambient_c + sum(self.rises)


def watched(board: TwoStages, observer: Observer, seconds: float, watts: float) -> float:
    temperature_c = 0.0
    for _ in range(int(seconds / STEP_S)):
        temperature_c = board.step(watts)
        observer.update(STEP_S, watts, temperature_c, None)
    return temperature_c


def test_it_knows_nothing_before_the_first_reading() -> None:
    observer = Observer(STAGES)
    observer.update(STEP_S, 2.2, None, None)

    assert observer.temperature_c is None


def test_a_board_like_its_model_is_forecast() -> None:
    board, observer = TwoStages(22, 2.2), Observer(STAGES)
    observer.update(STEP_S, 2.2, 22 + 2.2 * 12, None)
    watched(board, observer, 60, 5.6)
    forecast = observer.forecast(30)

    expected_c = watched(board, Observer(STAGES), 30, 5.6)
    assert forecast.at_zero_w_c + 5.6 * forecast.k_per_w == pytest.approx(expected_c, abs=0.2)


def test_a_budget_leads_to_the_limit() -> None:
    board, observer = TwoStages(35, 2.2), Observer(STAGES)
    observer.update(STEP_S, 2.2, 35 + 2.2 * 12, None)
    watched(board, observer, 30, 5.6)
    budget_w = observer.forecast(60).budget_w(75)

    assert watched(board, Observer(STAGES), 60, budget_w) == pytest.approx(75, abs=0.3)


@pytest.mark.parametrize("r", [(1.4, 7.0), (2.6, 13.0)])
def test_a_board_that_resists_otherwise_is_forecast_over_a_short_time(
    r: tuple[float, float],
) -> None:
    board, observer = TwoStages(22, 2.2, r), Observer(STAGES)
    for _ in range(4):
        watched(board, observer, 60, 5.6)
        watched(board, observer, 60, 3.0)
    forecast = observer.forecast(5)

    expected_c = watched(board, Observer(STAGES), 5, 3.0)
    assert forecast.at_zero_w_c + 3.0 * forecast.k_per_w == pytest.approx(expected_c, abs=0.5)


def test_a_warmer_room_moves_the_offset() -> None:
    board, observer = TwoStages(22, 3.0), Observer(STAGES)
    watched(board, observer, 300, 3.0)
    board.ambient_c = 30
    watched(board, observer, 900, 3.0)

    assert observer.offset_c == pytest.approx(30, abs=2.5)
    assert observer.temperature_c == pytest.approx(66, abs=0.1)


def test_a_drift_is_noticed() -> None:
    board, observer = TwoStages(22, 3.0), Observer(STAGES)
    watched(board, observer, 120, 3.0)
    for _ in range(240):
        board.ambient_c += 0.05 * STEP_S
        watched(board, observer, STEP_S, 3.0)

    # More rather than less: what the stages take on of it decays, and comes again.
    assert 0.045 < observer.drift_c_per_s < 0.1


def test_noise_shows_as_spread() -> None:
    noise = random.Random(1)
    board, observer = TwoStages(22, 3.0), Observer(STAGES)
    for _ in range(600):
        observer.update(STEP_S, 3.0, board.step(3.0) + noise.gauss(0, 1), None)

    assert observer.spread_c == pytest.approx(1, abs=0.2)


def test_many_noisy_readings_know_more_than_one() -> None:
    noise = random.Random(1)
    board, observer = TwoStages(22, 3.0), Observer(STAGES)
    uncertain_c = []
    for _ in range(600):
        observer.update(STEP_S, 3.0, board.step(3.0) + noise.gauss(0, 1), None)
        uncertain_c.append(observer.uncertainty_c)

    assert uncertain_c[0] == pytest.approx(1, abs=0.05)
    assert max(uncertain_c[120:]) < 0.4


def test_it_is_as_uncertain_as_it_errs() -> None:
    noise = random.Random(2)
    board, observer = TwoStages(22, 3.0), Observer(STAGES)
    errors_in_sds = []
    for step in range(3600):
        watts = 4.0 if step // 120 % 2 else 3.0
        true_c = board.step(watts)
        observer.update(STEP_S, watts, true_c + noise.gauss(0, 1), None)
        errors_in_sds.append((observer.temperature_c - true_c) / observer.uncertainty_c)

    assert 0.5 < math.sqrt(sum(each**2 for each in errors_in_sds[120:]) / 3480) < 1.2


def test_readings_that_go_on_surprising_are_followed_and_widen_the_doubt() -> None:
    noise = random.Random(3)
    board, observer = TwoStages(22, 3.0), Observer(STAGES)
    for _ in range(600):
        observer.update(STEP_S, 3.0, board.step(3.0) + noise.gauss(0, 1), None)
    sure_c = observer.uncertainty_c
    board.ambient_c += 4
    uncertain_c = []
    for _ in range(20):
        observer.update(STEP_S, 3.0, board.step(3.0) + noise.gauss(0, 1), None)
        uncertain_c.append(observer.uncertainty_c)

    assert max(uncertain_c) > 2 * sure_c
    assert observer.temperature_c == pytest.approx(board.step(3.0), abs=1.0)


def test_a_sensor_is_taken_to_be_noisy_until_it_has_shown_otherwise() -> None:
    board, observer = TwoStages(22, 3.0), Observer(STAGES)
    watched(board, observer, 1, 3.0)
    at_first_c = observer.spread_c
    watched(board, observer, 120, 3.0)

    assert at_first_c > 0.9
    assert observer.spread_c < 0.3


def test_without_readings_the_model_goes_on_alone() -> None:
    board, observer = TwoStages(22, 2.2), Observer(STAGES)
    watched(board, observer, 60, 2.2)
    expected_c = 0.0
    for _ in range(60):
        expected_c = board.step(5.6)
        observer.update(STEP_S, 5.6, None, None)

    assert observer.temperature_c == pytest.approx(expected_c, abs=0.2)


def test_a_fan_that_helps_is_learnt_while_the_load_changes() -> None:
    board, observer = TwoStages(22, 2.2, (2, 4)), Observer(STAGES)
    for _ in range(12):
        for watts in (5.6, 2.2):
            for _ in range(300):
                observer.update(STEP_S, watts, board.step(watts), 2)

    # Slowly: most of it is the offset's for a long time.
    assert 0.4 < observer.gain < 0.9


def test_nothing_is_learnt_of_a_fan_while_the_load_is_steady() -> None:
    board, observer = TwoStages(22, 3.0, (2, 4)), Observer(STAGES)
    for _ in range(3000):
        observer.update(STEP_S, 3.0, board.step(3.0), 2)

    assert observer.gain == 1.0


def test_a_gain_stays_within_reason() -> None:
    wild = random.Random(2)
    observer = Observer(STAGES)
    for _ in range(3000):
        observer.update(STEP_S, wild.uniform(0, 10), wild.uniform(0, 120), 1)

    assert GAIN_BOUNDS[0] <= observer.gain <= GAIN_BOUNDS[1]
