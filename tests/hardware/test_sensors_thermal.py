"""Which zone is read, and what stands in for it."""

from pathlib import Path
from typing import Any

import pytest

from edged.hardware.sensors_thermal import Heat, Zones

JETPACK_5 = ("CPU-therm", "GPU-therm", "CV0-therm", "SOC0-therm", "tj-therm", "PMIC-Die")
JETPACK_6 = ("cpu-thermal", "gpu-thermal", "cv0-thermal", "soc0-thermal", "tj-thermal")


class Machine:
    """Thermal zones below a folder, read twice a second."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.now_s = 100.0

    def zone(self, number: int, kind: str, temp: str, **trips: int) -> None:
        folder = f"sys/class/thermal/thermal_zone{number}"
        self.tree.write(f"{folder}/type", f"{kind}\n")
        self.tree.write(f"{folder}/temp", temp)
        for index, (trip, millidegrees) in enumerate(trips.items()):
            self.tree.write(f"{folder}/trip_point_{index}_type", f"{trip.rstrip('2')}\n")
            self.tree.write(f"{folder}/trip_point_{index}_temp", f"{millidegrees}\n")

    def hwmon(self, number: int, name: str, temp: str) -> None:
        self.tree.write(f"sys/class/hwmon/hwmon{number}/name", f"{name}\n")
        self.tree.write(f"sys/class/hwmon/hwmon{number}/temp1_input", temp)

    def zones(self, wanted: str | None) -> Zones:
        return Zones(self.tree.root, wanted, lambda: self.now_s)

    def read(self, zones: Zones, after_s: float = 0.5) -> Heat:
        self.now_s += after_s
        return zones.read()

    def path(self, number: int) -> Path:
        return self.tree.root / f"sys/class/thermal/thermal_zone{number}"


@pytest.fixture
def machine(tree: Any) -> Machine:
    return Machine(tree)


def test_the_named_zone_is_read_with_its_limits(machine: Machine) -> None:
    machine.zone(0, "gpu-thermal", "70000\n")
    machine.zone(
        1, "cpu-thermal", "61250\n", active=50_000, hot=95_000, passive=85_000, critical=110_000
    )

    assert machine.read(machine.zones("cpu-thermal")) == Heat(
        61.25, "cpu-thermal", passive_c=85.0, critical_c=110.0, faults=()
    )


@pytest.mark.parametrize("trip", [0, -274_000, -32_768_000, 200_000])
def test_a_trip_point_that_nobody_set_is_no_limit(machine: Machine, trip: int) -> None:
    machine.zone(0, "cpu-thermal", "61250\n", passive=trip)

    assert machine.read(machine.zones("cpu-thermal")).passive_c is None


def test_a_named_zone_that_is_missing_is_a_fault(machine: Machine) -> None:
    machine.zone(0, "gpu-thermal", "70000\n")

    heat = machine.read(machine.zones("cpu-thermal"))

    assert heat.temperature_c is None
    assert heat.faults == ("cpu-thermal: there is no such thermal zone",)


def test_a_zone_that_appears_later_is_found(machine: Machine) -> None:
    zones = machine.zones("cpu-thermal")
    machine.read(zones)
    machine.zone(0, "cpu-thermal", "50000\n")

    assert machine.read(zones, after_s=10.0).temperature_c == 50.0


def test_without_a_name_and_without_zones_there_is_neither_heat_nor_fault(
    machine: Machine,
) -> None:
    assert machine.read(machine.zones(None)) == Heat(None, None, None, None, ())


def test_without_a_name_the_hottest_counts(machine: Machine) -> None:
    machine.zone(0, "acpitz", "27800\n", critical=105_000)
    machine.zone(1, "x86_pkg_temp", "66000\n", passive=0)
    machine.zone(10, "iwlwifi_1", "40000\n")

    heat = machine.read(machine.zones(None))

    assert (heat.temperature_c, heat.sensor) == (66.0, "x86_pkg_temp")


def test_a_hottest_zone_without_limits_takes_the_passive_one_of_another(machine: Machine) -> None:
    machine.zone(0, "skin", "35000\n", passive=45_000, critical=60_000)
    machine.zone(1, "bigcore0-thermal", "61000\n", passive=85_000, critical=115_000)
    machine.zone(2, "package-thermal", "62000\n")

    heat = machine.read(machine.zones(None))

    assert (heat.passive_c, heat.critical_c) == (85.0, None)


def test_a_cooler_zone_that_is_off_is_no_fault(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "50000\n")
    machine.zone(1, "gpu-thermal", "")

    assert machine.read(machine.zones(None)).faults == ()


def test_the_hottest_zone_is_missed_when_it_fails(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "50000\n")
    machine.zone(1, "gpu-thermal", "70000\n")
    zones = machine.zones(None)
    machine.read(zones)
    machine.zone(1, "gpu-thermal", "-256000\n")

    heat = machine.read(zones)

    assert (heat.temperature_c, heat.sensor) == (50.0, "cpu-thermal")
    assert heat.faults == ("gpu-thermal: reads -256 °C, which cannot be",)


def test_two_zones_of_one_type_are_two(machine: Machine) -> None:
    machine.zone(0, "acpitz", "30000\n")
    machine.zone(1, "acpitz", "48000\n")

    assert machine.read(machine.zones(None)).temperature_c == 48.0


def test_a_processor_that_is_in_hwmon_alone_counts_where_no_zone_is_named(machine: Machine) -> None:
    machine.zone(0, "acpitz", "27800\n")
    machine.hwmon(0, "nvme", "73000\n")
    machine.hwmon(1, "k10temp", "61500\n")

    heat = machine.read(machine.zones(None))

    assert (heat.temperature_c, heat.sensor, heat.faults) == (61.5, "k10temp", ())


def test_of_two_inputs_of_such_a_processor_the_dies_own_counts(machine: Machine) -> None:
    machine.hwmon(0, "k10temp", "88500\n")
    machine.tree.write("sys/class/hwmon/hwmon0/temp2_label", "Tdie\n")
    machine.tree.write("sys/class/hwmon/hwmon0/temp2_input", "61500\n")

    assert machine.read(machine.zones(None)).temperature_c == 61.5


@pytest.mark.parametrize("odd", ["", "garbage\n", "200000\n", "-256000\n", "0\n"])
def test_the_mirror_in_hwmon_stands_in_and_the_zones_fault_stays_named(
    machine: Machine, odd: str
) -> None:
    machine.zone(0, "cpu-thermal", odd, critical=110_000)
    machine.hwmon(0, "nvme", "33000\n")
    machine.hwmon(1, "cpu_thermal", "61000\n")

    heat = machine.read(machine.zones("cpu-thermal"))

    assert (heat.temperature_c, heat.sensor, heat.critical_c) == (61.0, "cpu_thermal", 110.0)
    assert [fault.partition(":")[0] for fault in heat.faults] == ["cpu-thermal"]


def test_the_mirror_stands_in_for_a_zone_that_is_not_there(machine: Machine) -> None:
    machine.hwmon(1, "cpu_thermal", "61000\n")

    heat = machine.read(machine.zones("cpu-thermal"))

    assert (heat.temperature_c, heat.sensor) == (61.0, "cpu_thermal")
    assert heat.faults == ("cpu-thermal: there is no such thermal zone",)


def test_a_mirror_that_sticks_with_its_zone_does_not_stand_in(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "61000\n")
    machine.hwmon(0, "cpu_thermal", "61000\n")
    zones = machine.zones("cpu-thermal")
    for _ in range(200):
        machine.now_s += 0.5
        zones.read(2.2)
    for _ in range(100):
        machine.now_s += 0.5
        heat = zones.read(5.6)

    assert heat.temperature_c is None
    assert [fault.partition(" ")[0] for fault in heat.faults] == ["cpu-thermal:", "cpu_thermal:"]


def test_limits_stay_known_while_nothing_can_be_read(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "", passive=85_000, critical=110_000)

    assert machine.read(machine.zones("cpu-thermal")) == Heat(
        None, None, 85.0, 110.0, ("cpu-thermal: reads empty",)
    )


@pytest.mark.parametrize("kinds", [JETPACK_5, JETPACK_6], ids=["JetPack 5", "JetPack 6"])
def test_a_jetsons_hottest_point_is_found_under_either_name(
    machine: Machine, kinds: tuple[str, ...]
) -> None:
    for number, kind in enumerate(kinds):
        machine.zone(number, kind, f"{50 + number}000\n", passive=99_000, critical=104_500)

    assert machine.read(machine.zones("tj-thermal")) == Heat(54.0, kinds[4], 99.0, 104.5, ())


def test_without_tj_the_hottest_of_the_chip_is_the_same(machine: Machine) -> None:
    machine.zone(0, "CPU-therm", "51000\n", passive=99_000)
    machine.zone(1, "GPU-therm", "")
    machine.zone(2, "CV0-therm", "48000\n")
    machine.zone(3, "SOC0-therm", "52500\n", passive=98_000)
    machine.zone(4, "PMIC-Die", "100000\n")

    assert machine.read(machine.zones("tj-thermal")) == Heat(52.5, "SOC0-therm", 98.0, None, ())


def test_where_tj_fails_the_chips_zones_stand_in(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "51000\n")
    machine.zone(1, "gpu-thermal", "")
    machine.zone(2, "tj-thermal", "")

    heat = machine.read(machine.zones("tj-thermal"))

    assert (heat.temperature_c, heat.sensor) == (51.0, "cpu-thermal")
    assert heat.faults == ("tj-thermal: reads empty",)


def test_a_zone_that_got_another_number_is_found_again(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "51000\n")
    zones = machine.zones("cpu-thermal")
    machine.read(zones)
    machine.path(0).rename(machine.path(3))
    gone = machine.read(zones, after_s=10.0)

    assert gone.faults == ("cpu-thermal: is not there any more",)
    assert machine.read(zones).temperature_c == 51.0


def test_a_trip_point_that_was_set_counts_after_a_while(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "51000\n", passive=85_000)
    zones = machine.zones("cpu-thermal")
    machine.zone(0, "cpu-thermal", "51000\n", passive=75_000)

    assert machine.read(zones, after_s=60.0).passive_c == 75.0


def test_a_zone_that_has_gone_is_not_taken_for_the_one_in_its_place(machine: Machine) -> None:
    machine.zone(0, "cpu-thermal", "51000\n")
    machine.zone(1, "gpu-thermal", "52000\n")
    zones = machine.zones("cpu-thermal")
    machine.read(zones)
    (machine.path(0) / "temp").unlink()
    (machine.path(0) / "type").unlink()
    machine.path(0).rmdir()
    machine.path(1).rename(machine.path(0))

    heat = machine.read(zones, after_s=60.0)

    assert heat.temperature_c is None
    assert heat.faults == ("cpu-thermal: is not there any more",)


def test_a_name_that_is_no_text_is_no_obstacle(machine: Machine) -> None:
    machine.zone(0, "x", "51000\n")
    (machine.path(0) / "type").write_bytes(b"\xff\x00\x1b[31m" + b"y" * 100)

    sensor = machine.read(machine.zones(None)).sensor

    assert sensor is not None
    assert sensor.isprintable()
    assert len(sensor) <= 40
