"""The kernel's thermal zones, and what stands in for one that fails.

    the zone named ─► the same sensor in hwmon ─► for a Jetson's tj-thermal, the chip's zones

Without a name all zones are read, and what a processor has in hwmon alone. Of several the hottest
counts (Documentation/driver-api/thermal/sysfs-api.rst).
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.hardware.plausible import TEMPERATURE
from edged.hardware.sensors_files import (
    LOOK_AGAIN_S,
    FileSensor,
    file_sensor,
    found,
    name_in,
    number,
)

_HOTTEST: Final = "tj-thermal"
_OF_THE_CHIP: Final = re.compile(r"(cpu|gpu|cv\d|soc\d)-thermal")
"""The zones of which tj-thermal is the hottest (Jetson Linux Developer Guide)."""
_HWMON_ONLY: Final = "k10temp"
"""AMD's processors have no thermal zone. The first input may be shifted to please a fan's curve;
then the second is what the chip really has (Documentation/hwmon/k10temp.rst)."""
_LOOK_ANYWAY_S: Final = 60.0
"""Trip points can be set, and a zone's number be given to another."""
_TRIPS_C: Final = (40.0, 150.0)
"""A trip point outside is one that nobody has set: 0, -274 or -32 °C are seen."""
_CHIPS_TRIP_C: Final = 60.0
"""Below are those of a skin or a battery, which say nothing of a chip."""


@dataclass(frozen=True)
class Heat:
    """The zone that is read; faults of those that should have been."""

    temperature_c: float | None
    sensor: str | None
    passive_c: float | None
    critical_c: float | None
    faults: tuple[str, ...]


@dataclass
class _Zone:
    kind: str
    """As ``sys/class/thermal/*/type`` has it, or hwmon's ``name``."""
    sensor: FileSensor
    passive_c: float | None = None
    critical_c: float | None = None


class Zones:
    """Of one machine; ``wanted`` is a zone's type, ``None`` for whichever is hottest."""

    def __init__(self, root: Path, wanted: str | None, monotonic: Callable[[], float]) -> None:
        self._root = root
        self._wanted = wanted
        self._monotonic = monotonic
        self._zones: dict[tuple[str, int], _Zone] = {}
        self._mirrors: dict[tuple[str, int], _Zone] = {}
        self._named: list[_Zone] = []
        self._chip: list[_Zone] = []
        self._read: _Zone | None = None
        self._look()

    def read(self, watts: float | None = None) -> Heat:
        looked_ago_s = self._monotonic() - self._looked_s
        if looked_ago_s >= _LOOK_ANYWAY_S or (looked_ago_s >= LOOK_AGAIN_S and self._misses()):
            self._look()
        if self._wanted is None:
            return self._heat(*_hottest(self._zones.values(), watts))
        zone, faults = _hottest(self._named, watts)
        # Read even while it is not needed: without its past it could not be judged.
        mirror, more = _hottest(self._mirrors.values(), watts)
        if zone is None:
            zone, faults = mirror, faults + more
        if zone is None and self._chip:
            zone, more = _hottest(self._chip, watts)
            faults += more
        is_there = self._named or (self._chip and _same(self._wanted) == _HOTTEST)
        if not is_there:
            faults = [f"{self._wanted}: there is no such thermal zone", *faults]
        return self._heat(zone, faults)

    def _heat(self, zone: _Zone | None, faults: list[str]) -> Heat:
        self._read = zone or self._read
        return Heat(
            temperature_c=zone.sensor.plausible.last if zone else None,
            sensor=zone.kind if zone else None,
            passive_c=self._passive_c(),
            critical_c=_first(each.critical_c for each in self._limiting()),
            faults=tuple(dict.fromkeys(faults)),
        )

    def _limiting(self) -> list[_Zone]:
        """Whose trip points count, also while it cannot be read: a mirror's are its zone's."""
        return [*([self._read] if self._read else []), *self._named]

    def _passive_c(self) -> float | None:
        """The zone's own; without a zone's name else that of another which can be the chip's.

        Many boards give a passive trip point to only some of the chip's zones, and which of
        them is hottest changes by the second.
        """
        own_c = _first(each.passive_c for each in self._limiting())
        if own_c is not None or self._wanted is not None:
            return own_c
        others = [each.passive_c for each in self._zones.values()]
        return min(
            (each for each in others if each is not None and each >= _CHIPS_TRIP_C), default=None
        )

    def _misses(self) -> bool:
        if not (self._zones if self._wanted is None else self._named):
            return True
        every = (*self._zones.values(), *self._mirrors.values())
        return any(each.sensor.is_gone for each in every)

    def _look(self) -> None:
        """Find what there is; what is known keeps its past, wherever it stands now."""
        self._looked_s = self._monotonic()
        for known in (*self._zones.values(), *self._mirrors.values()):
            known.sensor.path = ""  # another may stand there now
        folders = found(self._root, "sys/class/thermal/thermal_zone*")
        kinds = [name_in(f"{folder}/type") or Path(folder).name for folder in folders]
        for ordinal, (kind, folder) in _numbered(zip(kinds, folders, strict=True)):
            zone = self._known(self._zones, (kind, ordinal), f"{folder}/temp")
            zone.passive_c, zone.critical_c = _trips(folder)
        wanted = _same(self._wanted or "")
        into = self._zones if self._wanted is None else self._mirrors
        folders = found(self._root, "sys/class/hwmon/hwmon*")
        named = ((name_in(f"{folder}/name"), folder) for folder in folders)
        chips = [each for each in named if _same(each[0]) == (wanted or _HWMON_ONLY)]
        for ordinal, (kind, folder) in _numbered(chips):
            self._known(into, (kind, ordinal), f"{folder}/{_input(kind, folder)}")
        zones = list(self._zones.values())
        self._named = [each for each in zones if _same(each.kind) == wanted][:1]
        if wanted == _HOTTEST:
            self._chip = [each for each in zones if _OF_THE_CHIP.fullmatch(_same(each.kind))]

    def _known(self, zones: dict[tuple[str, int], _Zone], key: tuple[str, int], path: str) -> _Zone:
        if key not in zones:
            sensor = file_sensor(key[0], path, TEMPERATURE, self._monotonic, divisor=1000)
            zones[key] = _Zone(key[0], sensor)
        zones[key].sensor.path = path
        return zones[key]


def _hottest(zones: Iterable[_Zone], watts: float | None) -> tuple[_Zone | None, list[str]]:
    """The hottest that can be believed, and the faults of those that might be hotter.

    A zone that is cooler, or is switched off, is none that anybody misses.
    """
    readings = [(zone.sensor.read(watts), zone) for zone in zones]
    believed = [(value, zone) for value, zone in readings if value is not None]
    hottest_c, hottest = max(believed, key=lambda each: each[0], default=(0.0, None))
    faults = [
        fault
        for _, zone in readings
        if (fault := zone.sensor.fault) is not None
        and (hottest is None or _was_c(zone) >= hottest_c)
    ]
    return hottest, faults


def _was_c(zone: _Zone) -> float:
    last_c = zone.sensor.plausible.last
    return -math.inf if last_c is None else last_c


def _trips(folder: str) -> tuple[float | None, float | None]:
    """The lowest trip point of those that slow the machine, and of those that end it."""
    passive: list[float] = []
    critical: list[float] = []
    for path in found(Path(folder), "trip_point_*_type"):
        kind = name_in(path)
        millidegrees = number(path.removesuffix("_type") + "_temp")
        if isinstance(millidegrees, str) or kind not in ("passive", "hot", "critical"):
            continue
        celsius = millidegrees / 1000
        if _TRIPS_C[0] < celsius <= _TRIPS_C[1]:
            (critical if kind == "critical" else passive).append(celsius)
    return min(passive, default=None), min(critical, default=None)


def _input(kind: str, folder: str) -> str:
    has_own = kind == _HWMON_ONLY and name_in(f"{folder}/temp2_label") == "Tdie"
    return "temp2_input" if has_own else "temp1_input"


def _first(temperatures_c: Iterable[float | None]) -> float | None:
    return next((each for each in temperatures_c if each is not None), None)


def _numbered(each: Iterable[tuple[str, str]]) -> list[tuple[int, tuple[str, str]]]:
    """With which of its name it is, from 0: two zones may have the same type."""
    seen: dict[str, int] = {}
    numbered = []
    for one in each:
        numbered.append((seen.setdefault(one[0], 0), one))
        seen[one[0]] += 1
    return numbered


def _same(name: str) -> str:
    """One spelling: JetPack 5 says CPU-therm, JetPack 6 cpu-thermal, hwmon cpu_thermal."""
    plain = name.casefold().replace("_", "-")
    return f"{plain}al" if plain.endswith("-therm") else plain
