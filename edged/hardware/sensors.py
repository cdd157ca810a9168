"""How the machine is doing: every sensor that it has, as one ``Reading``.

    sensors_thermal   the kernel's thermal zones, and hwmon where one fails
    sensors_gauges    fan, power meter, clock of the cores
    sensors_pi        firmware of a Raspberry Pi
    sensors_jetson    over-current counters of a Jetson
    sensors_nvml      NVIDIA's GPUs
    sensors_memory    memory, pressure, control groups
    plausible         which of it can be believed

Files are looked up once and again when one has gone. A read opens a dozen of them; it may be
slow where a sensor is, so the daemon reads in a thread.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edged.hardware.sensors_gauges import Gauges
from edged.hardware.sensors_jetson import OverCurrents
from edged.hardware.sensors_memory import MemorySensors
from edged.hardware.sensors_nvml import ZONE as NVML
from edged.hardware.sensors_nvml import Gpus, NvmlSensors
from edged.hardware.sensors_pi import Firmware
from edged.hardware.sensors_thermal import Heat, Zones
from edged.messages import Reading


class Sensors:
    """Of one machine, below ``root``."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        zone: str | None,
        nvml: Any = None,
        pid: int | str = "self",
        monotonic: Callable[[], float] = time.monotonic,
        is_told_of: Callable[[str], bool] = lambda _path: False,
    ) -> None:
        """``zone`` is a thermal zone's type or nvml; ``None`` takes the machine's hottest zone.

        ``nvml`` stands in for the module pynvml, which is used only for a zone of that name or
        where no zone is named and NVIDIA's driver is loaded. ``pid`` is whose control groups
        limit the memory. ``is_told_of`` says which files of pressure are not to be read.
        """
        self._monotonic = monotonic
        self._is_gpus_heat = zone == NVML
        has_driver = zone is None and (root / "proc/driver/nvidia/version").exists()
        asks_nvml = nvml is not None or self._is_gpus_heat or has_driver
        self._gpus = NvmlSensors(nvml, monotonic) if asks_nvml else None
        self._zones = None if self._is_gpus_heat else Zones(root, zone, monotonic)
        self._gauges = Gauges(root, monotonic)
        self._firmware = Firmware(root, monotonic)
        self._over_currents = OverCurrents(root, monotonic)
        self._memory = MemorySensors(root, pid, monotonic, is_told_of)

    def read(self, watts: float | None = None) -> Reading:
        """Look at everything once; never raises.

        ``watts`` is what the caller reckons the board to draw: where that changes and a
        temperature does not, its sensor is stuck.
        """
        now_s = self._monotonic()
        gpus = self._gpus.read() if self._gpus else Gpus()
        heat = self._zones.read(watts) if self._zones else _of_gpus(gpus)
        gauged = self._gauges.read()
        is_slowed, is_under_voltage, firmware_faults = self._firmware.read()
        over_currents_per_s, counter_faults = self._over_currents.read()
        memory, memory_fault = self._memory.read(gpus.free_bytes)
        faults = [*heat.faults, *gauged.faults, *firmware_faults, *counter_faults]
        if memory_fault is not None:
            faults.append(memory_fault)
        return Reading(
            monotonic_s=now_s,
            temperature_c=heat.temperature_c,
            temperature_sensor=heat.sensor,
            passive_c=heat.passive_c,
            critical_c=heat.critical_c,
            fan_rpm=_whole(gauged.fan_rpm),
            fan_step=_whole(gauged.fan_step),
            is_slowed=is_slowed or gpus.is_slowed,
            is_under_voltage=is_under_voltage,
            over_currents_per_s=over_currents_per_s,
            watts=gpus.watts if self._is_gpus_heat else gauged.watts,
            clock_mhz=gpus.clock_mhz if self._is_gpus_heat else gauged.clock_mhz,
            memory=memory,
            faults=tuple(faults),
        )


def _of_gpus(gpus: Gpus) -> Heat:
    sensor = None if gpus.temperature_c is None else NVML
    return Heat(gpus.temperature_c, sensor, gpus.passive_c, gpus.critical_c, gpus.faults)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
