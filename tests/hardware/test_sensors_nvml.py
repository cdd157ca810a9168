"""A PC's GPU through a stand-in for pynvml, for no GPU can be had here."""

from types import SimpleNamespace
from typing import Any

import pytest

from edged.hardware.sensors import Sensors
from edged.hardware.sensors_nvml import Gpus, NvmlSensors

GIB = 2**30


class NVMLError(Exception):
    pass


class Nvml:
    """The calls of pynvml that are used; ``missing`` ones are not supported."""

    NVMLError = NVMLError

    def __init__(self, *missing: str, count: int = 1) -> None:
        self.missing = set(missing)
        self.count = count
        self.celsius = [61.0] * count
        self.reasons = 0x4
        self.opened = self.closed = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "missing"):

            def refuse(*arguments: object) -> None:
                raise NVMLError("Not Supported")

            return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802 (the library's names)
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.closed += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> float:  # noqa: N802
        return self.celsius[handle]

    def nvmlDeviceGetTemperatureV(self, handle: int, sensor: int) -> float:  # noqa: N802
        return self.celsius[handle]

    def nvmlDeviceGetTemperatureThreshold(self, handle: int, threshold: int) -> int:  # noqa: N802
        return {0: 98, 1: 95}[threshold]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 168_500

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        return 1777

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=12 * GIB, free=(9 - handle) * GIB, used=0)


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


def test_a_gpu_says_all_that_it_can() -> None:
    assert NvmlSensors(Nvml(), Now()).read() == Gpus(
        temperature_c=61.0,
        passive_c=95.0,
        critical_c=98.0,
        is_slowed=False,
        watts=168.5,
        clock_mhz=1777,
        free_bytes=9 * GIB,
    )


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        ("nvmlDeviceGetTemperatureThreshold", {"passive_c": None, "critical_c": None}),
        ("nvmlDeviceGetPowerUsage", {"watts": None}),
        ("nvmlDeviceGetClockInfo", {"clock_mhz": None}),
        ("nvmlDeviceGetMemoryInfo", {"free_bytes": None}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {}),
        ("nvmlDeviceGetTemperature", {}),
    ],
)
def test_what_is_not_supported_is_unknown_and_the_rest_is_told(
    missing: str, unknown: dict[str, None]
) -> None:
    whole, part = (NvmlSensors(nvml, Now()).read() for nvml in (Nvml(), Nvml(missing)))

    assert vars(part) == vars(whole) | unknown


@pytest.mark.parametrize(
    ("reasons", "is_slowed"),
    [(0x1, False), (0x4, False), (0x8, True), (0x20, True), (0x40, True), (0x84, True)],
)
def test_the_power_cap_alone_is_no_heat(reasons: int, is_slowed: bool) -> None:
    nvml = Nvml()
    nvml.reasons = reasons

    assert NvmlSensors(nvml, Now()).read().is_slowed is is_slowed


def test_an_older_driver_gives_its_reasons_too() -> None:
    nvml = Nvml("nvmlDeviceGetCurrentClocksEventReasons")
    nvml.reasons = 0x20

    assert NvmlSensors(nvml, Now()).read().is_slowed


def test_of_two_gpus_the_hottest_counts() -> None:
    nvml = Nvml(count=2)
    nvml.celsius = [50.0, 70.0]
    read = NvmlSensors(nvml, Now()).read()

    assert (read.temperature_c, read.watts, read.free_bytes) == (70.0, 337.0, 9 * GIB)


@pytest.mark.parametrize("celsius", [200.0, 2**32 - 10, 0.0])
def test_a_temperature_that_cannot_be_is_a_fault(celsius: float) -> None:
    nvml = Nvml()
    nvml.celsius = [celsius]
    read = NvmlSensors(nvml, Now()).read()

    assert read.temperature_c is None
    assert read.faults == (f"nvml: reads {celsius:g} °C, which cannot be",)


def test_a_gpu_that_does_not_answer_is_a_fault() -> None:
    nvml = Nvml("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV")

    assert NvmlSensors(nvml, Now()).read().faults == ("nvml: does not answer",)


def test_without_a_driver_it_says_so_and_asks_again_later(now: Now) -> None:
    nvml = Nvml("nvmlInit")
    sensors = NvmlSensors(nvml, now)
    first = sensors.read()
    nvml.missing.clear()
    now.s += 29
    soon = sensors.read()
    now.s += 1

    assert first.faults == soon.faults == ("nvml: the driver does not answer (Not Supported)",)
    assert sensors.read().temperature_c == 61.0


@pytest.mark.parametrize("missing", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_without_a_gpu_it_says_so(missing: str) -> None:
    assert NvmlSensors(Nvml(missing), Now()).read() == Gpus(
        faults=("nvml: the driver knows no GPU",)
    )


def test_without_the_binding_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)

    assert NvmlSensors(None, Now()).read().faults == (
        "nvml: nvidia-ml-py is missing; pip install 'edged[nvidia]'",
    )


def test_a_gpu_that_was_lost_is_opened_anew(now: Now) -> None:
    nvml = Nvml()
    sensors = NvmlSensors(nvml, now)
    sensors.read()
    nvml.missing |= {"nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"}
    for _ in range(2):
        now.s += 30
        sensors.read()

    assert (nvml.opened, nvml.closed) == (2, 1)


def test_a_slow_gpu_is_asked_only_now_and_then(now: Now) -> None:
    class Slow(Nvml):
        asked = 0

        def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> float:  # noqa: N802
            now.s += 0.5
            self.asked += 1
            return 61.0

    nvml = Slow()
    sensors = NvmlSensors(nvml, now)
    read = []
    for _ in range(60):
        now.s += 0.5
        read.append(sensors.read())

    assert nvml.asked < 6
    assert read[-1].faults == ("nvml: took 500 ms to read",)


def test_a_pc_is_read_through_its_gpu(tree: Any, now: Now) -> None:
    tree.write("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n")
    tree.write("sys/class/thermal/thermal_zone0/temp", "88000\n")
    tree.write("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "4400000\n")

    reading = Sensors(tree.root, zone="nvml", nvml=Nvml(), monotonic=now).read()

    assert (reading.temperature_c, reading.temperature_sensor) == (61.0, "nvml")
    assert (reading.passive_c, reading.critical_c) == (95.0, 98.0)
    assert (reading.watts, reading.clock_mhz, reading.is_slowed) == (168.5, 1777, False)
    assert reading.memory is not None
    assert reading.memory.gpu_free_bytes == 9 * GIB
    assert reading.faults == ()


def test_without_a_zones_name_a_gpu_gives_only_its_memory_and_its_slowing(
    tree: Any, now: Now
) -> None:
    nvml = Nvml()
    nvml.reasons = 0x40

    reading = Sensors(tree.root, zone=None, nvml=nvml, monotonic=now).read()

    assert (reading.temperature_c, reading.watts, reading.is_slowed) == (None, None, True)
    assert reading.memory is not None
    assert reading.memory.gpu_free_bytes == 9 * GIB


def test_the_stand_in_has_the_names_of_the_binding() -> None:
    pynvml = pytest.importorskip("pynvml")

    ours = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert [name for name in ours if not callable(getattr(pynvml, name, None))] == []


def test_the_numbers_are_those_of_the_binding() -> None:
    pynvml = pytest.importorskip("pynvml")
    from edged.hardware import sensors_nvml as ours  # noqa: PLC0415

    assert (ours._SHUTDOWN, ours._SLOWDOWN, ours._GPU_SENSOR, ours._GRAPHICS_CLOCK) == (
        pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
        pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
        pynvml.NVML_TEMPERATURE_GPU,
        pynvml.NVML_CLOCK_GRAPHICS,
    )
    assert (
        pynvml.nvmlClocksEventReasonHwSlowdown
        | pynvml.nvmlClocksEventReasonSwThermalSlowdown
        | pynvml.nvmlClocksEventReasonHwThermalSlowdown
        | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
    ) == ours._SLOWED
