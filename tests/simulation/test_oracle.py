"""What constant operation could do, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from edged.hardware.profile import read_profile
from edged.hardware.twin import Twin, TwinBoard, twin_board
from edged.simulation.oracle import Oracle, resistance_at_limit


def pi5(case: str = "bare") -> TwinBoard:
    return twin_board(read_profile("pi5-8gb"), case)


def test_its_watts_end_at_the_limit(tmp_path: Path):
    watts = Oracle(pi5(), has_clock=True).sustainable_w(22)
    twin = Twin(pi5(), tmp_path, ambient_c=22)
    twin.advance(36000.0, watts)

    assert watts == pytest.approx((80 - 22) / 12)
    assert twin.temperature_c == pytest.approx(80, abs=1e-6)


def test_a_step_of_the_ambient_never_takes_it_above_the_limit(tmp_path: Path):
    oracle = Oracle(pi5("closed"), has_clock=True)
    twin = Twin(pi5("closed"), tmp_path, ambient_c=22)
    peaks_c = []
    for ambient_c in (22.0, 40.0):
        twin.ambient_c = ambient_c
        for _ in range(7200):
            twin.advance(0.5, oracle.sustainable_w(ambient_c))
            peaks_c.append(twin.temperature_c)

    assert max(peaks_c) <= 80 + 1e-6
    assert peaks_c[-1] == pytest.approx(80, abs=0.01)


def test_without_a_clock_it_takes_turns_between_numbers_of_threads():
    flow = Oracle(pi5(), has_clock=False).best("decode", 4.65)  # half way from 2 to 3 threads

    assert flow.watts == 4.65
    assert flow.decode == pytest.approx((0.88 + 0.98) / 2)
    assert flow.prefill == pytest.approx((0.51 + 0.76) / 2)


def test_below_one_thread_it_rests():
    flow = Oracle(pi5(), has_clock=False).best("decode", 2.8)  # half way from idle to 1 thread

    assert flow.decode == pytest.approx(0.55 / 2)


def test_what_lies_below_the_hull_is_not_taken():
    points = tuple(
        point.model_copy(update={"decode": 0.1}) if point.threads == 2 else point
        for point in pi5().points
    )
    flow = Oracle(replace(pi5(), points=points), has_clock=False).best("decode", 4.3)

    assert flow.decode == pytest.approx(0.55 + (0.98 - 0.55) * (4.3 - 3.4) / (5.0 - 3.4))


def test_with_enough_watts_it_is_as_fast_as_the_board():
    flow = Oracle(pi5("cooler"), has_clock=True).best("prefill", 9.0)

    assert (flow.watts, flow.prefill) == (5.6, 1.0)


def test_a_clock_makes_more_of_the_same_watts():
    speeds = [Oracle(pi5(), has_clock=has).best("decode", 3.75).decode for has in (False, True)]

    assert speeds[0] < speeds[1]


def test_a_fan_counts_as_it_turns_at_the_limit():
    assert resistance_at_limit(replace(pi5(), fan_scales=(1.0, 0.9, 0.8, 0.7, 0.5))) == 2 + 10 * 0.5
