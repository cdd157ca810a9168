"""The governor: what it allows, and what it never does."""

import dataclasses
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.hardware.board import Board, Point, Stage
from edged.messages import Pace, Reading
from edged.throttle.governor import Decision, Demand, ThermalGovernor

BOARD = Board(
    zone="cpu-thermal",
    limit_c=80,
    critical_c=110,
    stages=(Stage(2, 12), Stage(10, 300)),
    worst_r_k_per_w=15,
    points=(
        Point(0, 2.2, 0, 0),
        Point(1, 3.4, 0.55, 0.26),
        Point(2, 4.3, 0.88, 0.51),
        Point(3, 5.0, 0.98, 0.76),
        Point(4, 5.6, 1, 1),
    ),
    min_mhz=1500,
    max_mhz=2400,
)
BLIND_W = (80 - 40) / 15
ANSWERING = Demand(queued=0, reading=0, answering=1)
READING = Demand(queued=0, reading=1, answering=0)
IDLE = Demand(queued=0, reading=0, answering=0)


def drawn_w(decision: Decision, phase: str, board: Board = BOARD) -> float:
    """What the board draws on average at a pace, computed apart from the governor."""
    pace = decision.pace
    if pace.paused:
        return 2.2
    threads = pace.threads_decode if phase == "decode" else pace.threads_prefill
    duty = pace.duty_decode if phase == "decode" else pace.duty_prefill
    full_w = next(each.watts for each in board.points if each.threads == (threads or 4))
    share = (decision.clock_mhz or 2400) / 2400
    return 2.2 + duty * (full_w - 2.2) * share**3


def steady(
    governor: ThermalGovernor, temperature_c: float, demand: Demand = ANSWERING, seconds: float = 60
) -> Decision:
    """As if the sensor stood still."""
    decision = None
    for step in range(int(seconds * 2)):
        reading = Reading(step / 2, temperature_c, temperature_sensor="cpu-thermal")
        decision = governor.decide(reading, demand)
    assert decision is not None
    return decision


def test_a_cool_board_works_as_it_likes() -> None:
    decision = steady(ThermalGovernor(BOARD), 50)

    assert (decision.pace, decision.level, decision.clock_mhz) == (Pace(), "nominal", None)


def test_where_the_clock_is_ours_a_cool_board_has_all_of_it() -> None:
    assert steady(ThermalGovernor(BOARD, has_clock=True), 50).clock_mhz == 2400


def test_at_its_limit_a_board_works_less() -> None:
    decision = steady(ThermalGovernor(BOARD, has_clock=True), 79.9)

    assert decision.level != "nominal"
    assert drawn_w(decision, "decode") < 4.0


def test_the_reason_names_limit_and_sensor() -> None:
    decision = steady(ThermalGovernor(BOARD), 79.9)

    assert (decision.reason, decision.sensor) == ("held below 80 °C", "cpu-thermal")


def test_far_above_the_limit_nothing_works() -> None:
    decision = steady(ThermalGovernor(BOARD), 84)

    assert (decision.pace.paused, decision.level) == (True, "paused")


def test_next_to_its_critical_temperature_it_is_overheated() -> None:
    assert steady(ThermalGovernor(BOARD), 106).is_overheated


def test_a_paused_board_that_has_cooled_down_works_again() -> None:
    governor = ThermalGovernor(BOARD)
    steady(governor, 84)
    decision = None
    for step in range(200):
        decision = governor.decide(Reading(60 + step / 2, 60.0), ANSWERING)

    assert decision is not None
    assert (decision.level, decision.pace.paused) == ("nominal", False)


def test_the_operators_limit_is_kept_where_it_is_lower() -> None:
    governor = ThermalGovernor(dataclasses.replace(BOARD, limit_c=65))

    assert steady(governor, 66).level != "nominal"


def test_a_lower_passive_trip_point_is_kept_instead() -> None:
    governor = ThermalGovernor(BOARD)
    decision = None
    for step in range(120):
        decision = governor.decide(Reading(step / 2, 69.9, passive_c=70), ANSWERING)

    assert decision is not None
    assert (decision.limit_c, decision.level == "nominal") == (70, False)


def test_a_machine_without_profile_stays_below_its_passive_trip_point() -> None:
    board = dataclasses.replace(BOARD, zone=None, limit_c=None)
    decision = ThermalGovernor(board).decide(Reading(0.0, 50.0, passive_c=95), ANSWERING)

    assert decision.limit_c == 90


def test_a_machine_without_limit_and_without_sensor_works_as_it_likes() -> None:
    board = dataclasses.replace(BOARD, zone=None, limit_c=None)
    decision = ThermalGovernor(board).decide(Reading(0.0), ANSWERING)

    assert (decision.pace, decision.level) == (Pace(), "nominal")


def test_a_board_whose_sensor_is_lost_works_as_the_worst_cooling_allows() -> None:
    governor = ThermalGovernor(BOARD)
    steady(governor, 50)
    decision = governor.decide(Reading(60.0, faults=("cpu-thermal: is gone",)), ANSWERING)

    assert drawn_w(decision, "decode") <= BLIND_W + 0.01
    assert not decision.pace.paused


def test_a_card_that_its_driver_slows_is_given_one_prompt_at_a_time() -> None:
    governor = ThermalGovernor(dataclasses.replace(BOARD, zone="nvml", is_governed=False))
    decision = governor.decide(Reading(0.0, 90.0, is_slowed=True), ANSWERING)

    assert decision.pace == Pace(width=1)


def test_a_card_that_its_driver_does_not_slow_is_left_alone() -> None:
    governor = ThermalGovernor(dataclasses.replace(BOARD, zone="nvml", is_governed=False))

    assert governor.decide(Reading(0.0, 90.0), ANSWERING).pace == Pace()


def test_reading_a_prompt_may_be_faster_than_answering_after_a_pause() -> None:
    governor = ThermalGovernor(BOARD, has_clock=True)
    answering = steady(governor, 78.0, ANSWERING, seconds=5)
    reading = governor.decide(Reading(5.0, 78.0), READING)

    assert drawn_w(reading, "prefill") > drawn_w(answering, "decode")


def test_one_reading_of_a_sensor_that_is_not_known_is_not_trusted_so_near_to_the_limit() -> None:
    known = ThermalGovernor(BOARD, has_clock=True)
    steady(known, 78.5, IDLE, seconds=300)

    assert not known.decide(Reading(300.0, 78.5), READING).pace.paused
    assert ThermalGovernor(BOARD, has_clock=True).decide(Reading(0.0, 78.5), READING).pace.paused


def test_a_prompt_that_is_read_for_long_is_slowed_down_sooner_than_one_that_has_just_begun() -> (
    None
):
    slowed_at_c = []
    for is_long in (True, False):
        governor, rises_c, now_c = ThermalGovernor(BOARD), [2 * 2.2, 10 * 2.2], 0.0
        for step in range(2400):
            now_c = 45 + sum(rises_c)
            # A step of answering now and then makes short prompts of one.
            demand = READING if is_long or step % 8 else ANSWERING
            drawn = drawn_w(governor.decide(Reading(step / 2, now_c), demand), "prefill")
            if drawn < 5.6:
                break
            for index, (r, tau_s) in enumerate(((2, 12), (10, 300))):
                rises_c[index] += (1 - math.exp(-0.5 / tau_s)) * (r * drawn - rises_c[index])
        slowed_at_c.append(now_c)

    assert slowed_at_c[0] < slowed_at_c[1] - 1


@pytest.mark.parametrize("seed", range(2))
def test_noise_of_a_degree_costs_less_than_a_degree(seed: int) -> None:
    noise = random.Random(seed)
    governor = ThermalGovernor(BOARD, has_clock=True)
    drawn = []
    for step in range(1200):
        reading = Reading(step / 2, 78.8 + noise.gauss(0, 1))
        drawn.append(drawn_w(governor.decide(reading, ANSWERING), "decode"))

    # What keeps 78.8 °C, or more: it is not afraid of a single reading.
    clean = ThermalGovernor(BOARD, has_clock=True)
    kept_w = drawn_w(steady(clean, 79.8, ANSWERING, seconds=600), "decode")
    assert sum(drawn[240:]) / len(drawn[240:]) > kept_w


def test_what_the_board_is_taken_to_draw_is_idle_while_nobody_asks() -> None:
    assert steady(ThermalGovernor(BOARD), 50, IDLE).watts == 2.2


faults = st.sampled_from([None, 0.0, -256.0, 200.0, 25.0, 79.5, 80.0, 83.0, 90.0, 106.0])
steps = st.lists(
    st.tuples(
        st.one_of(faults, st.floats(-40, 150)),
        st.booleans(),
        st.sampled_from([IDLE, ANSWERING, READING]),
        st.one_of(st.none(), st.integers(0, 4)),
        st.floats(0, 30),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps, st.booleans())
def test_whatever_sensors_say_a_blind_governor_stays_below_what_it_may(
    sequence: list[tuple[float | None, bool, Demand, int | None, float]], has_clock: bool
) -> None:
    governor = ThermalGovernor(BOARD, has_clock=has_clock)
    now_s = 0.0
    for temperature_c, is_slowed, demand, fan_step, pause_s in sequence:
        now_s += pause_s
        reading = Reading(now_s, temperature_c, is_slowed=is_slowed, fan_step=fan_step)
        decision = governor.decide(reading, demand)
        if temperature_c is None:
            phase = "prefill" if demand.reading else "decode"
            assert drawn_w(decision, phase) <= BLIND_W + 0.02


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_degree_does_not_make_the_level_flicker(seed: int) -> None:
    noise = random.Random(seed)
    governor = ThermalGovernor(BOARD, has_clock=True)
    levels = [
        governor.decide(Reading(step / 2, 70 + noise.gauss(0, 1)), ANSWERING).level
        for step in range(1200)
    ]

    assert set(levels) == {"nominal"}
