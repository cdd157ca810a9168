"""What a Raspberry Pi's firmware says of heat and supply.

Bits of get_throttled as Raspberry Pi's documentation of vcgencmd has them. Those from 16 on,
"has occurred", are not used: the kernel's own under-voltage alarm clears them when it looks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from edged.hardware.plausible import BITS
from edged.hardware.sensors_files import FileSensor, file_sensor, found, name_in

_UNDER_VOLTAGE: Final = 1 << 0
_SLOWED: Final = 1 << 1 | 1 << 2 | 1 << 3
"""Clock capped, throttled, at the soft temperature limit."""
_PLACES: Final = (
    # soc on a Pi 4, soc@107c000000 on a Pi 5.
    "sys/devices/platform/soc*/*firmware/get_throttled",
    "sys/devices/platform/*firmware/get_throttled",
)


class Firmware:
    """Of a Raspberry Pi; on any other machine it says nothing."""

    def __init__(self, root: Path, monotonic: Callable[[], float]) -> None:
        paths = [path for place in _PLACES for path in found(root, place)]
        self._throttled = [
            file_sensor("get_throttled", path, BITS, monotonic, base=16) for path in paths[:1]
        ]
        alarms = (
            path
            for path in found(root, "sys/class/hwmon/hwmon*/in0_lcrit_alarm")
            if name_in(str(Path(path).with_name("name"))) == "rpi_volt"
        )
        self._alarm = [
            file_sensor("rpi_volt in0_lcrit_alarm", path, BITS, monotonic) for path in alarms
        ]

    def read(self) -> tuple[bool, bool, tuple[str, ...]]:
        """Whether the cores are slowed now, whether the supply is too weak, and faults."""
        bits = _any_bits(self._throttled)
        is_under_voltage = bool(bits & _UNDER_VOLTAGE or _any_bits(self._alarm))
        faults = (sensor.fault for sensor in (*self._throttled, *self._alarm))
        return bool(bits & _SLOWED), is_under_voltage, tuple(filter(None, faults))


def _any_bits(sensors: list[FileSensor]) -> int:
    bits = 0
    for sensor in sensors:
        bits |= int(sensor.read() or 0)
    return bits
