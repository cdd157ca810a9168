"""Whole machines: what one read says of a Raspberry Pi, a Jetson, this machine, and of chaos."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.hardware.sensors import Sensors
from edged.messages import Reading

FIRMWARE = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"
OVER_CURRENTS = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon4"


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


def make_pi_5(write: Callable[[str, str], None]) -> None:
    write("proc/meminfo", "MemTotal:  8132608 kB\nMemAvailable: 6132608 kB\n")
    write(f"{ZONE}/type", "cpu-thermal\n")
    write(f"{ZONE}/temp", "61750\n")
    trips = [("critical", 110), ("active", 50), ("active", 60), ("active", 67.5), ("active", 75)]
    for index, (kind, celsius) in enumerate(trips):
        write(f"{ZONE}/trip_point_{index}_type", f"{kind}\n")
        write(f"{ZONE}/trip_point_{index}_temp", f"{celsius * 1000:.0f}\n")
    write("sys/class/thermal/cooling_device0/type", "pwm-fan\n")
    write("sys/class/thermal/cooling_device0/cur_state", "2\n")
    write("sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    write("sys/class/hwmon/hwmon0/temp1_input", "61200\n")
    write("sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n")
    write("sys/class/hwmon/hwmon2/name", "pwmfan\n")
    write("sys/class/hwmon/hwmon2/fan1_input", "3512\n")
    write("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "2400000\n")
    write(FIRMWARE, "0\n")


def make_orin(write: Callable[[str, str], None], kinds: tuple[str, ...]) -> None:
    write("proc/meminfo", "MemTotal:  7801856 kB\nMemAvailable: 6132608 kB\n")
    for number, kind in enumerate(kinds):
        folder = f"sys/class/thermal/thermal_zone{number}"
        is_off = kind.casefold().startswith(("gpu", "cv"))
        write(f"{folder}/type", f"{kind}\n")
        write(f"{folder}/temp", "" if is_off else f"{47 + number}000\n")
        for index, (trip, celsius) in enumerate((("passive", 99), ("critical", 104.5))):
            write(f"{folder}/trip_point_{index}_type", f"{trip}\n")
            write(f"{folder}/trip_point_{index}_temp", f"{celsius * 1000:.0f}\n")
    for number in (1, 2, 3):
        write(f"{OVER_CURRENTS}/oc{number}_event_cnt", f"{number}\n")
    write("sys/class/thermal/cooling_device3/type", "pwm-fan\n")
    write("sys/class/thermal/cooling_device3/cur_state", "1\n")
    write("sys/class/hwmon/hwmon3/fan1_input", "1800\n")
    write("sys/class/hwmon/hwmon3/name", "pwm_tach\n")


@pytest.fixture
def pi_5(tree: Any) -> Any:
    make_pi_5(tree.write)
    return tree


def test_a_pi_5_is_read_whole(pi_5: Any, now: Now) -> None:
    reading = Sensors(pi_5.root, zone="cpu-thermal", monotonic=now).read()

    assert reading == Reading(
        monotonic_s=100.0,
        temperature_c=61.75,
        temperature_sensor="cpu-thermal",
        passive_c=None,
        critical_c=110.0,
        fan_rpm=3512,
        fan_step=2,
        clock_mhz=2400.0,
        memory=reading.memory,
    )
    assert reading.memory is not None
    assert reading.memory.available_bytes == 6132608 * 1024


@pytest.mark.parametrize(
    ("text", "is_slowed", "is_under_voltage"),
    [
        *(("0", False, False), ("1", False, True), ("2", True, False), ("4", True, False)),
        *(("8", True, False), ("0xf", True, True), ("50005", True, True), ("f0000", False, False)),
        ("", False, False),
    ],
)
def test_the_firmwares_bits_are_those_of_now(
    pi_5: Any, now: Now, text: str, is_slowed: bool, is_under_voltage: bool
) -> None:
    pi_5.write(FIRMWARE, f"{text}\n")

    reading = Sensors(pi_5.root, zone="cpu-thermal", monotonic=now).read()

    assert (reading.is_slowed, reading.is_under_voltage) == (is_slowed, is_under_voltage)


def test_the_firmware_is_found_where_a_pi_4_has_it(tree: Any, now: Now) -> None:
    tree.write("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")

    assert Sensors(tree.root, zone=None, monotonic=now).read().is_slowed


def test_firmware_that_says_nothing_is_a_fault(pi_5: Any, now: Now) -> None:
    pi_5.write(FIRMWARE, "")

    reading = Sensors(pi_5.root, zone="cpu-thermal", monotonic=now).read()

    assert reading.faults == ("get_throttled: reads empty",)


def test_the_kernels_alarm_is_under_voltage(pi_5: Any, now: Now) -> None:
    pi_5.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")

    assert Sensors(pi_5.root, zone="cpu-thermal", monotonic=now).read().is_under_voltage


def test_a_fan_that_is_lost_is_a_fault_until_it_is_found_elsewhere(pi_5: Any, now: Now) -> None:
    sensors = Sensors(pi_5.root, zone="cpu-thermal", monotonic=now)
    sensors.read()
    folder = pi_5.root / "sys/class/hwmon/hwmon2"
    folder.rename(folder.with_name("hwmon7"))
    lost = sensors.read()
    now.s += 10.0

    assert lost.faults == ("pwmfan fan1_input: is not there any more",)
    assert sensors.read().fan_rpm == 3512


@pytest.mark.parametrize("file", ["power1_average", "power1_input"])
def test_a_power_meter_is_read_in_watts(pi_5: Any, now: Now, file: str) -> None:
    pi_5.write(f"sys/class/hwmon/hwmon5/{file}", "7250000\n")

    assert Sensors(pi_5.root, zone="cpu-thermal", monotonic=now).read().watts == 7.25


JETPACK_5 = ("CPU-therm", "GPU-therm", "CV0-therm", "SOC0-therm", "SOC1-therm", "PMIC-Die")
JETPACK_6 = ("cpu-thermal", "gpu-thermal", "cv0-thermal", "soc0-thermal", "tj-thermal")


@pytest.mark.parametrize(
    ("kinds", "sensor"),
    [(JETPACK_5, "SOC1-therm"), (JETPACK_6, "tj-thermal")],
    ids=["JetPack 5", "JetPack 6"],
)
def test_a_jetson_is_read_whole(tree: Any, now: Now, kinds: tuple[str, ...], sensor: str) -> None:
    make_orin(tree.write, kinds)

    reading = Sensors(tree.root, zone="tj-thermal", monotonic=now).read()

    assert (reading.temperature_c, reading.temperature_sensor) == (51.0, sensor)
    assert (reading.passive_c, reading.critical_c) == (99.0, 104.5)
    assert (reading.fan_rpm, reading.fan_step) == (1800, 1)
    assert reading.faults == ()


def test_over_currents_are_a_rate(tree: Any, now: Now) -> None:
    make_orin(tree.write, JETPACK_6)
    sensors = Sensors(tree.root, zone="tj-thermal", monotonic=now)
    rates = [sensors.read().over_currents_per_s]
    now.s += 5.0
    rates.append(sensors.read().over_currents_per_s)
    tree.write(f"{OVER_CURRENTS}/oc2_event_cnt", "52\n")
    now.s += 5.0
    rates.append(sensors.read().over_currents_per_s)
    for _ in range(4):
        now.s += 5.0
        rates.append(sensors.read().over_currents_per_s)

    assert rates == [None, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0]


def test_counters_that_begin_again_are_no_rate(tree: Any, now: Now) -> None:
    make_orin(tree.write, JETPACK_6)
    sensors = Sensors(tree.root, zone="tj-thermal", monotonic=now)
    sensors.read()
    tree.write(f"{OVER_CURRENTS}/oc3_event_cnt", "0\n")
    now.s += 1.0

    assert sensors.read().over_currents_per_s is None


def test_a_machine_without_sensors_has_no_faults(tree: Any, now: Now) -> None:
    reading = Sensors(tree.root, zone=None, monotonic=now).read()

    assert reading == Reading(monotonic_s=100.0, memory=reading.memory)


def test_a_zone_that_ignores_the_power_is_stuck(pi_5: Any, now: Now) -> None:
    sensors = Sensors(pi_5.root, zone="cpu-thermal", monotonic=now)
    for second in range(100):
        pi_5.write("sys/class/hwmon/hwmon0/temp1_input", f"{60_000 + second * 10}\n")
        now.s += 1.0
        reading = sensors.read(2.2 if second < 60 else 5.6)

    assert reading.temperature_sensor == "cpu_thermal"
    assert reading.faults == (
        "cpu-thermal: stuck at 61.75 °C although the board's power has changed",
    )


def test_this_machine_can_be_read() -> None:
    reading = Sensors(zone=None).read()

    assert reading.memory is not None
    assert reading.temperature_c is None or -40 <= reading.temperature_c <= 150


TEMPERATURES = (
    st.none(),  # the file is not there
    st.sampled_from(
        [b"", b"-256000\n", b"200000\n", b"0\n", b"garbage", b"9" * 5000, b"-0", b"\x00", b"nan"]
    ),
    st.integers(-300_000, 300_000).map(lambda each: b"%d\n" % each),
    st.binary(max_size=40),
)
THERMOMETERS = (f"{ZONE}/temp", "sys/class/hwmon/hwmon0/temp1_input")
FILES = (
    *(f"{ZONE}/type", f"{ZONE}/trip_point_0_temp", f"{ZONE}/trip_point_0_type", FIRMWARE),
    *("sys/class/hwmon/hwmon0/name", "sys/class/hwmon/hwmon2/fan1_input"),
    *("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "sys/class/thermal/cooling_device0/cur_state"),
    *("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "proc/meminfo"),
    *("proc/pressure/memory", "proc/self/cgroup", "proc/self/mountinfo"),
)
CHANGE = st.tuples(
    st.one_of(st.sampled_from(THERMOMETERS), st.sampled_from(FILES)),
    st.one_of(*TEMPERATURES),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.5, 0.7, 12.0, 40.0]),
    st.sampled_from([None, 2.2, 5.6]),
)


@settings(deadline=None, max_examples=150)
@given(
    zone=st.sampled_from([None, "cpu-thermal", "tj-thermal"]),
    changes=st.lists(CHANGE, max_size=25),
    late=st.integers(0, 5),
)
def test_whatever_the_files_say_a_read_says_only_what_can_be(
    zone: str | None, changes: list[tuple[str, bytes | None, int, float, float | None]], late: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, now = Path(folder), Now()

        def write(path: str, text: str) -> None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)

        make_pi_5(write)
        (root / "proc/self").mkdir()
        (root / "proc/pressure").mkdir()
        sensors = None
        for index, (path, content, reads, after_s, watts) in enumerate(changes):
            if content is None:
                (root / path).unlink(missing_ok=True)
            else:
                (root / path).write_bytes(content)
            if index < late:
                continue
            sensors = sensors or Sensors(root, zone=zone, monotonic=now)
            for _ in range(reads):
                now.s += after_s
                reading = sensors.read(watts)
                assert reading.temperature_c is None or -40 <= reading.temperature_c <= 150
                assert (reading.temperature_c is None) == (reading.temperature_sensor is None)
                assert all(fault.isprintable() for fault in reading.faults)
