"""What many boards show alike: fan, fan step, a power meter, the cores' clock.

Files by Documentation/hwmon/sysfs-interface, driver-api/thermal/sysfs-api and
admin-guide/pm/cpufreq. Whatever a machine has not is ``None``, and no fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.hardware.plausible import CLOCK, FAN, POWER, STEP, Kind
from edged.hardware.sensors_files import LOOK_AGAIN_S, FileSensor, file_sensor, found, name_in

_Place = tuple[str, str]
"""A gauge's name and path."""


@dataclass(frozen=True)
class Gauged:
    """What the gauges say."""

    fan_rpm: float | None
    fan_step: float | None
    watts: float | None
    clock_mhz: float | None
    faults: tuple[str, ...]


class Gauges:
    """Of one machine."""

    def __init__(self, root: Path, monotonic: Callable[[], float]) -> None:
        self._root = root
        self._monotonic = monotonic
        self._sensors: dict[str, FileSensor] = {}
        self._look()

    def read(self) -> Gauged:
        is_gone = any(each.is_gone for each in self._sensors.values())
        if is_gone and self._looked_s + LOOK_AGAIN_S <= self._monotonic():
            self._look()
        said = {what: sensor.read() for what, sensor in self._sensors.items()}
        faults = (sensor.fault for sensor in self._sensors.values())
        return Gauged(
            fan_rpm=said.get("fan_rpm"),
            fan_step=said.get("fan_step"),
            watts=said.get("watts"),
            clock_mhz=said.get("clock_mhz"),
            faults=tuple(fault for fault in faults if fault is not None),
        )

    def _look(self) -> None:
        """Find what there is; of what has gone the path stays, and the fault."""
        self._looked_s = self._monotonic()
        for what, (place_of, kind, divisor) in _GAUGES.items():
            place = place_of(self._root)
            if place is None:
                continue
            name, path = place
            if what not in self._sensors:
                self._sensors[what] = file_sensor(
                    name, path, kind, self._monotonic, divisor=divisor
                )
            self._sensors[what].path = path


def _fan(root: Path) -> _Place | None:
    return _of_hwmon(root, "fan1_input")


def _watts(root: Path) -> _Place | None:
    return _of_hwmon(root, "power1_average") or _of_hwmon(root, "power1_input")


def _of_hwmon(root: Path, file: str) -> _Place | None:
    for path in found(root, f"sys/class/hwmon/hwmon*/{file}"):
        return f"{name_in(str(Path(path).with_name('name')))} {file}".strip(), path
    return None


def _fan_step(root: Path) -> _Place | None:
    for path in found(root, "sys/class/thermal/cooling_device*/type"):
        if "fan" in (kind := name_in(path)).casefold():
            return f"{kind} cur_state", str(Path(path).with_name("cur_state"))
    return None


def _clock(root: Path) -> _Place | None:
    paths = found(root, "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq")
    return ("policy0 scaling_cur_freq", paths[0]) if paths else None


_GAUGES: Final[dict[str, tuple[Callable[[Path], _Place | None], Kind, int]]] = {
    "fan_rpm": (_fan, FAN, 1),
    "fan_step": (_fan_step, STEP, 1),
    "watts": (_watts, POWER, 1_000_000),
    "clock_mhz": (_clock, CLOCK, 1000),
}
"""Where each is, what it measures, and by how much the kernel's unit is smaller."""
