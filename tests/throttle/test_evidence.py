"""What readings prove by themselves: a hysteresis."""

from collections.abc import Iterable

import pytest

from edged.messages import Reading
from edged.throttle.evidence import FORGOTTEN_S, LEARNT_C, RECENT, Evidence, Heat

LIMIT_C = 80.0


def after(evidence: Evidence, temperatures: Iterable[float], *, is_slowed: bool = False) -> Heat:
    for second, temperature_c in enumerate(temperatures):
        evidence.weigh(Reading(second, temperature_c, is_slowed=is_slowed), LIMIT_C)
    return evidence.heat


def test_below_the_limit_all_is_fine() -> None:
    assert after(Evidence(110), [79.9] * 100) is Heat.FINE


def test_a_single_reading_proves_nothing() -> None:
    assert after(Evidence(110), [79.0] * 20 + [120.0]) is Heat.FINE


def test_readings_that_are_typically_at_the_limit_do() -> None:
    assert after(Evidence(110), [80.0] * RECENT) is Heat.OVER


def test_noise_around_a_temperature_below_the_limit_does_not() -> None:
    evidence = Evidence(110)
    for second in range(200):
        reading = Reading(second, 79.7 + (-1.0, 0.0, 1.0)[second % 3])
        assert evidence.weigh(reading, LIMIT_C, spread_c=1.0) is Heat.FINE


@pytest.mark.parametrize(("then_c", "heat"), [(78.5, Heat.OVER), (77.5, Heat.FINE)])
def test_it_is_over_until_it_is_clearly_cooler(then_c: float, heat: Heat) -> None:
    assert after(Evidence(110), [81.0] * RECENT + [then_c] * RECENT) is heat


def test_two_readings_far_above_stop_everything() -> None:
    assert after(Evidence(110), [79.0] * 20 + [83.5, 83.5]) is Heat.STOP


@pytest.mark.parametrize(("then_c", "heat"), [(78.0, Heat.STOP), (76.5, Heat.FINE)])
def test_it_is_stopped_until_it_is_clearly_cooler(then_c: float, heat: Heat) -> None:
    assert after(Evidence(110), [84.0] * RECENT + [then_c] * RECENT) is heat


def test_next_to_the_critical_temperature_prompts_end() -> None:
    assert after(Evidence(110), [105.0, 105.0]) is Heat.CRITICAL


def test_a_lower_critical_trip_point_counts_instead() -> None:
    evidence = Evidence(110)
    for second in range(2):
        evidence.weigh(Reading(second, 96.0, critical_c=100), LIMIT_C)

    assert evidence.heat is Heat.CRITICAL


def test_the_firmware_is_believed_at_once() -> None:
    assert after(Evidence(110), [79.0], is_slowed=True) is Heat.OVER


def test_a_firmware_that_slows_a_cool_board_has_other_reasons() -> None:
    assert after(Evidence(110), [60.0] * 20, is_slowed=True) is Heat.FINE


def test_each_time_the_firmware_acts_the_margin_grows_once() -> None:
    evidence = Evidence(110)
    after(evidence, [79.0] * 5, is_slowed=True)
    after(evidence, [70.0] * 20)
    after(evidence, [79.0] * 5, is_slowed=True)

    assert evidence.learnt_c == pytest.approx(1.0, abs=0.02)


def test_what_the_firmware_proved_is_forgotten_where_it_is_not_proved_again() -> None:
    evidence = Evidence(110)
    after(evidence, [79.0], is_slowed=True)
    evidence.weigh(Reading(2 * FORGOTTEN_S, 79.0), LIMIT_C)

    assert evidence.learnt_c < LEARNT_C / 5


def test_without_a_temperature_it_stays_as_hot_as_it_was() -> None:
    evidence = Evidence(110)
    after(evidence, [84.0] * RECENT)
    for second in range(100):
        evidence.weigh(Reading(100 + second), LIMIT_C)

    assert evidence.heat is Heat.STOP
