"""The simulated board against its equations, and its files against those who read them."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.hardware import health_board
from edged.hardware.memory import meminfo_bytes
from edged.hardware.profile import read_profile
from edged.hardware.schema import Stage
from edged.hardware.twin import FAN_TRIPS_C, SensorLoss, Twin, TwinBoard, twin_board

ZONE = "sys/class/thermal/thermal_zone0/temp"
HWMON = "sys/class/hwmon/hwmon0/temp1_input"
CAP = "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq"
CLOCK = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
THROTTLED = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
THREE_STAGES = (
    Stage(r_k_per_w=2, tau_s=12),
    Stage(r_k_per_w=4, tau_s=80),
    Stage(r_k_per_w=6, tau_s=400),
)


def pi5(case: str = "bare") -> TwinBoard:
    return twin_board(read_profile("pi5-8gb"), case)


def prompt_board(**changes: object) -> TwinBoard:
    """Its chip has the air's temperature at once, and its sensor says so exactly."""
    board = replace(
        pi5(),
        stages=(Stage(r_k_per_w=1e-9, tau_s=1e-3),),
        sensor_lag_s=1e-3,
        sensor_noise_sd_c=0.0,
        sensor_step_c=0.0,
    )
    return replace(board, **changes)  # type: ignore[arg-type]


def at(twin: Twin, celsius: float, for_s: float) -> None:
    twin.ambient_c = celsius
    for _ in range(round(for_s * 10)):
        twin.advance(0.1, 0.0)


def said(root: Path, path: str) -> str:
    return (root / path).read_text().strip()


@pytest.mark.parametrize("stages", [pi5().stages, pi5("closed").stages, THREE_STAGES])
def test_heating_follows_the_step_response(stages: tuple[Stage, ...], tmp_path: Path):
    board = replace(pi5(), stages=stages)
    twin = Twin(board, tmp_path, ambient_c=22)
    watts = 5.6
    for took_s in (0.1, 0.25, 3.0, 40.0, 0.7, 300.0, 1800.0):
        twin.advance(took_s, watts)

        expected = 22 + sum(
            stage.r_k_per_w * (watts - (watts - 2.2) * math.exp(-twin.now_s / stage.tau_s))
            for stage in stages
        )
        assert twin.temperature_c == pytest.approx(expected, abs=1e-6)


def test_the_size_of_the_steps_changes_nothing(tmp_path: Path):
    coarse = Twin(pi5(), tmp_path / "coarse", ambient_c=22)
    fine = Twin(pi5(), tmp_path / "fine", ambient_c=22)
    coarse.advance(100.0, 5.0)
    for _ in range(1000):
        fine.advance(0.1, 5.0)

    assert fine.temperature_c == pytest.approx(coarse.temperature_c, abs=1e-6)
    assert fine.joules == pytest.approx(500.0)


def test_the_air_warms_the_board_as_slowly_as_the_outer_stage(tmp_path: Path):
    twin = Twin(pi5(), tmp_path, ambient_c=22)
    idle_c = twin.temperature_c
    twin.ambient_c = 40
    for _ in range(10):
        twin.advance(60.0, 2.2)

    expected = idle_c + 18 * (1 - math.exp(-600 / 300))
    assert twin.temperature_c == pytest.approx(expected, abs=1e-6)


def test_a_bare_board_has_80_degrees_5_to_7_minutes_after_idle(tmp_path: Path):
    twin = Twin(pi5(), tmp_path, ambient_c=22)
    while twin.temperature_c < 80:
        twin.advance(1.0, 5.6)

    assert 5 <= twin.now_s / 60 <= 7


def test_watts_and_speeds_follow_the_clock(tmp_path: Path):
    twin = Twin(pi5(), tmp_path, ambient_c=22)
    (tmp_path / CAP).write_text("1800000\n")
    twin.obey()

    share = 1800 / 2400
    assert twin.watts(2) == pytest.approx(2.2 + (4.3 - 2.2) * share**3)
    assert twin.decode_speed(2) == pytest.approx(0.88 * share**0.3)
    assert twin.prefill_speed(2) == pytest.approx(0.51 * share)


def test_without_a_number_of_threads_all_of_them_work(tmp_path: Path):
    twin = Twin(pi5(), tmp_path, ambient_c=22)

    assert twin.watts() == twin.watts(4) == twin.watts(9) == 5.6


@pytest.mark.parametrize(
    ("celsius", "for_s", "mhz"),
    [(79.9, 60, 2400), (80.5, 3, 2100), (80.5, 60, 1500), (85.5, 1, 1000)],
)
def test_the_firmware_takes_the_clock_off(celsius: float, for_s: float, mhz: float, tmp_path: Path):
    twin = Twin(prompt_board(), tmp_path, ambient_c=50)
    at(twin, celsius, for_s)

    assert twin.clock_mhz == pytest.approx(mhz)


@pytest.mark.parametrize(("celsius", "mhz"), [(79.0, 2100), (77.5, 2300)])
def test_the_firmware_gives_the_clock_back_only_below_78_degrees(
    celsius: float, mhz: float, tmp_path: Path
):
    twin = Twin(prompt_board(), tmp_path, ambient_c=50)
    at(twin, 80.5, 3)
    at(twin, celsius, 2)

    assert twin.clock_mhz == pytest.approx(mhz)


def test_the_firmware_ignores_a_higher_cap_and_obeys_a_lower_one(tmp_path: Path):
    twin = Twin(prompt_board(), tmp_path, ambient_c=50)
    at(twin, 80.5, 3)
    for cap_khz, mhz in ((2300000, 2100), (1700000, 1700)):
        (tmp_path / CAP).write_text(f"{cap_khz}\n")
        twin.obey()

        assert twin.clock_mhz == pytest.approx(mhz)


@pytest.mark.parametrize(("khz", "mhz"), [(100, 1500), (9000000, 2400)])
def test_a_cap_stays_within_what_the_processor_can(khz: int, mhz: float, tmp_path: Path):
    twin = Twin(pi5(), tmp_path, ambient_c=22)
    (tmp_path / CAP).write_text(f"{khz}\n")
    twin.obey()

    assert twin.clock_mhz == mhz


def test_the_firmware_tells_that_it_slows_down_and_that_it_did(tmp_path: Path):
    twin = Twin(prompt_board(), tmp_path, ambient_c=50)
    before = said(tmp_path, THROTTLED)
    at(twin, 80.5, 2)
    twin.publish()
    meanwhile = said(tmp_path, THROTTLED)
    at(twin, 60, 10)
    twin.publish()

    assert (before, meanwhile, said(tmp_path, THROTTLED)) == ("0", "60006", "60000")


def test_the_files_say_what_the_sensor_has(tmp_path: Path):
    twin = Twin(prompt_board(), tmp_path, ambient_c=50)
    at(twin, 63.25, 1)
    twin.publish()

    assert said(tmp_path, ZONE) == said(tmp_path, HWMON) == "63250"
    assert said(tmp_path, CLOCK) == "2400000"


def test_the_sensor_lags(tmp_path: Path):
    twin = Twin(prompt_board(sensor_lag_s=3.0), tmp_path, ambient_c=50)
    twin.ambient_c = 60
    for _ in range(3000):
        twin.advance(0.001, 0.0)
    twin.publish()

    assert twin.sensed_c == pytest.approx(60 - 10 * math.exp(-1), abs=0.02)


def test_the_sensor_has_steps_of_its_own(tmp_path: Path):
    twin = Twin(prompt_board(sensor_step_c=0.55, sensor_noise_sd_c=1.0), tmp_path, ambient_c=50)
    found = set()
    for _ in range(50):
        twin.publish()
        found.add(round((450 - twin.sensed_c) / 0.55, 6))

    assert len(found) > 3
    assert all(step == round(step) for step in found)


def test_noise_is_the_same_for_the_same_seed(tmp_path: Path):
    def noise(name: str, seed: int) -> list[float]:
        twin = Twin(pi5(), tmp_path / name, ambient_c=50, seed=seed)
        found = []
        for _ in range(20):
            twin.publish()
            found.append(twin.sensed_c)
        return found

    assert noise("first", 1) == noise("again", 1)
    assert noise("other", 2) != noise("once more", 1)


def test_a_fan_steps_up_with_the_heat_and_back_five_degrees_below(tmp_path: Path):
    board = prompt_board(fan_scales=(1.0, 0.9, 0.8, 0.7, 0.6))
    twin = Twin(board, tmp_path, ambient_c=40)
    steps = []
    for celsius in (49, *(trip_c + 0.1 for trip_c in FAN_TRIPS_C), 70.5, 69.5, 40):
        at(twin, celsius, 0.5)
        steps.append(twin.fan_step)
    twin.publish()

    assert steps == [0, 1, 2, 3, 4, 4, 3, 0]
    assert said(tmp_path, "sys/class/thermal/cooling_device0/cur_state") == "0"


def test_a_fan_takes_resistance_off_the_outer_stage(tmp_path: Path):
    board = replace(pi5(), fan_scales=(1.0, 0.9, 0.8, 0.7, 0.5))
    twin = Twin(board, tmp_path, ambient_c=70)
    for _ in range(36000):
        twin.advance(0.1, 3.0)

    assert twin.fan_step == 4
    assert twin.temperature_c == pytest.approx(70 + 3.0 * (2 + 10 * 0.5), abs=1e-6)


def test_a_lost_sensor_leaves_its_file_empty(tmp_path: Path):
    losses = (SensorLoss("zone", from_s=10.0, until_s=20.0),)
    twin = Twin(prompt_board(losses=losses), tmp_path, ambient_c=50)
    found = []
    for _ in range(3):
        twin.publish()
        found.append((said(tmp_path, ZONE), said(tmp_path, HWMON)))
        twin.advance(10.0, 0.0)

    assert found == [("50000", "50000"), ("", "50000"), ("50000", "50000")]


def test_the_doctor_finds_a_healthy_raspberry_pi(tmp_path: Path):
    profile = read_profile("pi5-8gb")
    Twin(pi5(), tmp_path, ambient_c=22)

    findings = [*health_board.thermal(tmp_path, profile), *health_board.power(tmp_path)]
    assert [finding.outcome for finding in findings] == ["ok", "ok"]
    assert findings[0].found.startswith("cpu-thermal has 4")
    assert meminfo_bytes(tmp_path)["MemTotal"] == profile.memory.total_bytes


@pytest.mark.parametrize(
    ("profile", "case", "message"),
    [
        ("rtx3060-12gb", "bare", r"has no \[thermal.cooling\] to simulate"),
        ("pi5-8gb", "fridge", "knows no case fridge; known are: cooler, small, bare, case, closed"),
    ],
)
def test_a_profile_that_says_too_little_is_an_error(profile: str, case: str, message: str):
    with pytest.raises(ConfigError, match=message):
        twin_board(read_profile(profile), case)
