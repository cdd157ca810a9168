"""What ``edged doctor`` makes of a board, from trees of files as boards present them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edged.hardware import health_board
from edged.hardware.gpu import Gpu
from edged.hardware.health import Finding
from edged.hardware.machine import Machine, read_machine
from edged.hardware.profile import profile_folders, read_profile

SHIPPED = profile_folders()[:1]


# Temperatures


def zone(tree: Any, number: int, kind: str, temp: str, **trips: int) -> None:
    folder = f"sys/class/thermal/thermal_zone{number}"
    tree.write(f"{folder}/type", f"{kind}\n")
    tree.write(f"{folder}/temp", temp)
    for index, (trip, celsius) in enumerate(trips.items()):
        tree.write(f"{folder}/trip_point_{index}_type", f"{trip}\n")
        tree.write(f"{folder}/trip_point_{index}_temp", f"{celsius * 1000}\n")


PI5 = read_profile("pi5-8gb", SHIPPED)
ORIN = read_profile("jetson-orin-nano-8gb", SHIPPED)


def test_the_profiles_zone_tells_its_temperature(tree: Any) -> None:
    zone(tree, 0, "cpu-thermal", "48250\n", critical=110, active=50)

    (finding,) = health_board.thermal(tree.root, PI5)

    assert finding == Finding("ok", "cpu-thermal has 48 °C; edged slows down from 75 °C on")


def test_a_zone_that_is_not_there_names_those_that_are(tree: Any) -> None:
    zone(tree, 0, "CPU-therm", "48250\n")
    zone(tree, 1, "tj-therm", "48250\n")

    (finding,) = health_board.thermal(tree.root, ORIN)

    assert finding.outcome == "warning"
    assert "tj-thermal is not there: CPU-therm, tj-therm" in finding.found
    assert "/etc/edged/hw_profiles/jetson-orin-nano-8gb.toml" in (finding.remedy or "")


@pytest.mark.parametrize("temp", ["0\n", "-256000\n", "200000\n"])
def test_a_temperature_that_cannot_be_is_a_broken_sensor(tree: Any, temp: str) -> None:
    zone(tree, 0, "tj-thermal", temp)

    (finding,) = health_board.thermal(tree.root, ORIN)

    assert (finding.outcome, "a broken sensor" in finding.found) == ("warning", True)


def test_the_profiles_zone_that_is_off_is_a_warning(tree: Any) -> None:
    zone(tree, 0, "tj-thermal", "")

    (finding,) = health_board.thermal(tree.root, ORIN)

    assert (finding.outcome, "does not answer" in finding.found) == ("warning", True)


def test_another_zone_that_is_off_is_none_of_our_business(tree: Any) -> None:
    zone(tree, 0, "cv0-thermal", "")
    zone(tree, 1, "tj-thermal", "51000\n", passive=99, critical=104)

    assert [each.outcome for each in health_board.thermal(tree.root, ORIN)] == ["ok", "ok"]


def test_a_board_that_is_hot_wants_a_cooler(tree: Any) -> None:
    zone(tree, 0, "cpu-thermal", "81700\n")

    (finding,) = health_board.thermal(tree.root, PI5)

    assert (finding.outcome, "82 °C" in finding.found) == ("warning", True)
    assert "cooler" in (finding.remedy or "")


def test_a_trip_point_below_the_profiles_limit_is_noted(tree: Any) -> None:
    zone(tree, 0, "cpu-thermal", "48250\n", passive=70, critical=110, active=50)

    _, finding = health_board.thermal(tree.root, PI5)

    assert finding.found == (
        "the kernel's passive trip point of 70 °C is below the profile's 80 °C"
    )


def test_without_a_zone_in_the_profile_the_hottest_counts(tree: Any) -> None:
    generic = read_profile("generic-aarch64", SHIPPED)
    zone(tree, 0, "soc", "41000\n")
    zone(tree, 1, "big", "62000\n")
    zone(tree, 2, "gone", "200000\n")

    (finding,) = health_board.thermal(tree.root, generic)

    assert finding.found == "2 thermal zones; the hottest is big with 62 °C"


def test_a_virtual_machine_has_no_temperature(tree: Any) -> None:
    (finding,) = health_board.thermal(tree.root, None)

    assert finding.outcome == "not applicable"


def test_a_gpus_temperature_is_left_to_nvml(tree: Any) -> None:
    rtx = read_profile("rtx3060-12gb", SHIPPED)

    assert health_board.thermal(tree.root, rtx)[0].outcome == "not applicable"


# Power

PI4_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI5_FIRMWARE = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"


@pytest.mark.parametrize("path", [PI4_FIRMWARE, PI5_FIRMWARE])
def test_a_board_with_enough_power_is_well(tree: Any, path: str) -> None:
    tree.write(path, "0\n")

    assert health_board.power(tree.root) == [
        Finding("ok", "no under-voltage and no throttling since boot")
    ]


def test_under_voltage_now_and_before_is_told_apart(tree: Any) -> None:
    tree.write(PI5_FIRMWARE, "70005\n")

    now, before = health_board.power(tree.root)

    assert now.found == "now: under-voltage, throttled"
    assert "5 V 5 A" in (now.remedy or "")
    assert before.found == "since boot: clock capped"


def test_throttling_by_heat_wants_a_cooler_and_no_supply(tree: Any) -> None:
    tree.write(PI4_FIRMWARE, "8000c\n")

    (now,) = health_board.power(tree.root)

    assert now.found == "now: throttled, soft temperature limit"
    assert "cooler" in (now.remedy or "")
    assert "5 V" not in (now.remedy or "")


def test_under_voltage_that_only_the_sensor_driver_knows_counts(tree: Any) -> None:
    tree.write(PI5_FIRMWARE, "0\n")
    tree.write("sys/class/hwmon/hwmon2/name", "rpi_volt\n")
    tree.write("sys/class/hwmon/hwmon2/in0_lcrit_alarm", "1\n")

    (finding,) = health_board.power(tree.root)

    assert (finding.outcome, "alarm is on" in finding.found) == ("warning", True)


def test_the_sensor_driver_alone_is_enough(tree: Any) -> None:
    tree.write("sys/class/hwmon/hwmon2/name", "rpi_volt\n")
    tree.write("sys/class/hwmon/hwmon2/in0_lcrit_alarm", "0\n")

    assert [each.outcome for each in health_board.power(tree.root)] == ["ok"]


def test_a_pc_says_nothing_of_its_supply(tree: Any) -> None:
    assert [each.outcome for each in health_board.power(tree.root)] == ["not applicable"]


# GPU

PC = Machine("x86_64", "AMD Ryzen 5 5600X", 6, ("avx2",), 32 * 2**30)
RTX = Gpu("NVIDIA GeForce RTX 3060", 12288 * 2**20, 11500 * 2**20, "8.6", "550.54.14")


def test_a_pc_without_a_gpu_lacks_nothing(tree: Any) -> None:
    assert health_board.gpu(tree.root, PC, has_nvml=False)[0].outcome == "not applicable"


def test_a_gpu_without_a_driver_is_a_warning(tree: Any) -> None:
    tree.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    tree.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n")

    (finding,) = health_board.gpu(tree.root, PC, has_nvml=True)

    assert (finding.outcome, "driver is not loaded" in finding.found) == ("warning", True)


@pytest.mark.parametrize(
    ("has_nvml", "remedy"), [(False, "pip install 'edged[nvidia]'"), (True, "sudo reboot")]
)
def test_a_driver_that_edged_cannot_ask_is_a_warning(
    tree: Any, has_nvml: bool, remedy: str
) -> None:
    tree.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX 550.54.14\n")

    (finding,) = health_board.gpu(tree.root, PC, has_nvml=has_nvml)

    assert finding.outcome == "warning"
    assert remedy in (finding.remedy or "")


def test_a_gpu_that_can_be_used_is_named_with_its_driver(tree: Any) -> None:
    tree.write("dev/nvidiactl", "")

    findings = health_board.gpu(tree.root, replace(PC, gpus=(RTX,)), has_nvml=True)

    assert findings == [Finding("ok", "NVIDIA GeForce RTX 3060, driver 550.54.14")]


def test_a_device_that_this_user_may_not_open_wants_a_group(
    tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write("dev/nvmap", "")
    # root, as which these tests may run, may open everything.
    monkeypatch.setattr("os.access", lambda path, mode: False)

    (finding,) = health_board.gpu(tree.root, replace(PC, tegra_release="R36"), has_nvml=False)

    assert (finding.outcome, "/dev/nvmap" in finding.found) == ("warning", True)
    assert "usermod -aG video,render" in (finding.remedy or "")


def test_a_jetson_needs_no_nvml(board: Callable[[str], Path]) -> None:
    root = board("jetson-orin-nano-8gb")
    machine = read_machine(root, architecture="aarch64", gpus=lambda: ())

    (finding,) = health_board.gpu(root, machine, has_nvml=False)

    assert (finding.outcome, "R36" in finding.found) == ("ok", True)


# Clock of the cores


def test_the_clock_of_the_cores_is_optional(tree: Any) -> None:
    assert health_board.clock_cap(tree.root).outcome == "not applicable"

    tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "2400000\n")
    assert health_board.clock_cap(tree.root).outcome == "ok"
