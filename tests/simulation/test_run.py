"""Short simulations, through the files and edged's own sensors."""

from dataclasses import replace

import pytest

from edged.errors import ConfigError
from edged.simulation.policies import POLICIES
from edged.simulation.results import percentiles
from edged.simulation.run import simulate, unthrottled_first_token_s
from edged.simulation.scenario import Ambient, Scenario

HOT = Scenario(case="closed", ambient="38", minutes=6)


def test_a_simulation_is_the_same_for_the_same_seed():
    scenario = replace(HOT, workload="mixed", minutes=3)

    assert simulate(scenario, "governor") == simulate(scenario, "governor")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_answers_and_every_second_has_a_level(policy: str):
    results = simulate(replace(HOT, case="bare"), policy)

    assert results.tokens > 0
    assert sum(results.levels.values()) == pytest.approx(360)


def test_the_firmware_alone_lives_above_the_limit():
    results = simulate(replace(HOT, minutes=15), "none")

    assert results.seconds_above_limit > 60
    assert results.peak_c > results.limit_c


def test_the_oracle_never_passes_the_limit():
    results = simulate(replace(HOT, minutes=15), "oracle")

    assert results.seconds_above_limit == 0


def test_stopping_at_75_degrees_stays_below_80():
    results = simulate(replace(HOT, case="bare"), "hysteresis")

    assert results.levels["paused"] > 0
    assert 74 < results.peak_c < 80


def test_threads_are_taken_one_by_one():
    results = simulate(HOT, "stepwise", with_series=True)

    drawn_w = {round(watts, 3) for watts in results.series.watts}
    assert {5.6, 5.0, 4.3} < drawn_w


def test_a_fixed_duty_is_what_a_room_of_35_degrees_allows():
    results = simulate(replace(HOT, minutes=2), "duty", with_series=True)

    assert results.series.watts == pytest.approx([(80 - 35) / 15] * 240)


def test_where_no_clock_is_granted_it_stays():
    scenario = replace(HOT, has_clock=False, minutes=10)
    for policy in ("pi", "governor"):
        results = simulate(scenario, policy, with_series=True)

        assert set(results.series.clock_mhz) == {2400.0}


def test_a_cold_voice_waits_as_long_as_on_a_machine_that_never_heats():
    results = simulate(Scenario(case="cooler", workload="voice", minutes=10), "none")

    assert results.first_token_s == results.unthrottled_first_token_s
    assert results.first_token_s is not None
    assert results.first_token_s.p50 == pytest.approx(60 / 15)


def test_a_background_job_has_no_first_token_that_counts():
    scenario = Scenario(case="cooler", workload="mixed", minutes=10)
    voices = simulate(replace(scenario, workload="voice"), "none").first_tokens

    assert simulate(scenario, "none").first_tokens == voices


def test_progress_is_told_in_virtual_minutes():
    minutes: list[float] = []
    simulate(Scenario(minutes=3), "none", progress=minutes.append)

    assert minutes == [0, 1, 2]


def test_a_board_of_another_structure_runs_through_the_loss_of_a_sensor():
    results = simulate(replace(HOT, structure="worse", minutes=25), "governor")

    assert results.seconds_above_hard == 0
    assert results.tokens > 0


def test_the_ambient_changes_at_its_minute():
    ambient = Ambient.parse("22:40.5@30:-3@45")

    assert [ambient.at(60 * minute) for minute in (0, 29.9, 30, 45)] == [22, 22, 40.5, -3]


@pytest.mark.parametrize("text", ["", "warm", "22:40", "22@30", "22:40@30:35@20", "nan"])
def test_what_is_no_ambient_is_an_error(text: str):
    with pytest.raises(ConfigError, match=r"no ambient temperature|must rise"):
        Ambient.parse(text)


def test_percentiles_lie_between_the_nearest_values():
    found = percentiles([float(value) for value in range(21)])

    assert found is not None
    assert (found.p50, found.p95) == (10, 19)
    assert percentiles([]) is None


def test_on_a_machine_that_never_heats_a_voice_is_read_at_once():
    found = unthrottled_first_token_s(Scenario(workload="voice"))

    assert found is not None
    assert found.p95 == pytest.approx(4.0)
