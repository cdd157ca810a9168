"""The files of a simulated Raspberry Pi: where its kernel would show them, below any folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_THERMAL: Final = "sys/class/thermal"
_HWMON: Final = "sys/class/hwmon"
_CPUFREQ: Final = "sys/devices/system/cpu/cpufreq/policy0"
_FIRMWARE: Final = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware"
_CORES: Final = 4
_FAN_TRIPS_MILLIDEGREES: Final = (50_000, 60_000, 67_500, 75_000)
"""Of bcm2712.dtsi: the board has them whether or not a fan is plugged in."""
_FAN_RPM: Final = (0, 2000, 3500, 5500, 8000)
"""With the fan off and at each step: assumed, and nobody regulates by it."""


@dataclass(frozen=True)
class Shown:
    """What the files say at one moment; a temperature of ``None`` leaves its file empty."""

    zone_c: float | None
    hwmon_c: float | None
    clock_mhz: float
    throttled: int
    fan_step: int


class TwinFiles:
    """Writes what has changed since the last time; reads the cap on the clock."""

    def __init__(self, root: Path, zone: str, critical_c: float, *, has_fan: bool) -> None:
        self._root = root
        self._zone = zone
        self._critical_c = critical_c
        self._has_fan = has_fan
        self._cap = root / _CPUFREQ / "scaling_max_freq"
        self._said: dict[str, str] = {}

    def make(self, min_mhz: int, max_mhz: int, memory_mib: int) -> None:
        """All folders, and the files that never change."""
        memory_kib = memory_mib * 1024
        trips = [("critical", round(self._critical_c * 1000))]
        trips += [("active", trip) for trip in _FAN_TRIPS_MILLIDEGREES]
        files = {
            f"{_THERMAL}/thermal_zone0/type": self._zone,
            f"{_HWMON}/hwmon0/name": "cpu_thermal",
            f"{_HWMON}/hwmon1/name": "rpi_volt",
            f"{_HWMON}/hwmon1/in0_lcrit_alarm": "0",
            f"{_CPUFREQ}/cpuinfo_min_freq": str(min_mhz * 1000),
            f"{_CPUFREQ}/cpuinfo_max_freq": str(max_mhz * 1000),
            f"{_CPUFREQ}/scaling_min_freq": str(min_mhz * 1000),
            f"{_CPUFREQ}/scaling_max_freq": str(max_mhz * 1000),
            "proc/meminfo": f"MemTotal: {memory_kib} kB\nMemAvailable: {memory_kib * 3 // 4} kB",
            f"{_FIRMWARE}/get_throttled": "0",
        }
        for number, (kind, millidegrees) in enumerate(trips):
            files[f"{_THERMAL}/thermal_zone0/trip_point_{number}_type"] = kind
            files[f"{_THERMAL}/thermal_zone0/trip_point_{number}_temp"] = str(millidegrees)
        if self._has_fan:
            files[f"{_HWMON}/hwmon2/name"] = "pwmfan"
            files[f"{_THERMAL}/cooling_device0/type"] = "pwm-fan"
            files[f"{_THERMAL}/cooling_device0/max_state"] = str(len(_FAN_TRIPS_MILLIDEGREES))
        for path, text in files.items():
            (self._root / path).parent.mkdir(parents=True, exist_ok=True)
            self._write(path, text)
        for core in range(_CORES):
            folder = self._root / f"sys/devices/system/cpu/cpu{core}"
            folder.mkdir(exist_ok=True)
            (folder / "cpufreq").symlink_to("../cpufreq/policy0")

    def show(self, shown: Shown) -> None:
        """What is new; a file is written in place, as readers know it from sysfs."""
        self._write(f"{_THERMAL}/thermal_zone0/temp", _millidegrees(shown.zone_c))
        self._write(f"{_HWMON}/hwmon0/temp1_input", _millidegrees(shown.hwmon_c))
        self._write(f"{_CPUFREQ}/scaling_cur_freq", str(round(shown.clock_mhz) * 1000))
        self._write(f"{_FIRMWARE}/get_throttled", f"{shown.throttled:x}")
        if self._has_fan:
            self._write(f"{_HWMON}/hwmon2/fan1_input", str(_FAN_RPM[shown.fan_step]))
            self._write(f"{_THERMAL}/cooling_device0/cur_state", str(shown.fan_step))

    def cap_mhz(self) -> float | None:
        """What somebody wrote to ``scaling_max_freq``; ``None`` if it is no number."""
        text = self._cap.read_bytes().strip()
        return int(text) / 1000 if text.isdigit() else None

    def _write(self, path: str, text: str) -> None:
        if self._said.get(path) == text:
            return
        self._said[path] = text
        content = f"{text}\n".encode() if text else b""
        # In place and cut afterwards: who reads meanwhile must not find an empty file.
        file = os.open(f"{self._root}/{path}", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(file, content, 0)
            os.ftruncate(file, len(content))
        finally:
            os.close(file)


def _millidegrees(celsius: float | None) -> str:
    return "" if celsius is None else str(round(celsius * 1000))
