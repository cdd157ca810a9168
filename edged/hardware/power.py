"""What the machine draws, where a meter can be read: RAPL, or a power sensor of hwmon.

RAPL counts the energy of each processor package in microjoules and begins again at its range
(Documentation/power/powercap); hwmon's ``power1_average`` is in microwatts
(Documentation/hwmon/sysfs-interface). Many boards have neither, and RAPL is root's alone.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from edged.hardware.cgroups import read_text

_SAMPLE_S = 0.2


@dataclass
class Power:
    """Of a stretch of time, once it is over; ``None`` where nothing can be read."""

    watts: float | None = None


@contextlib.contextmanager
def measured_watts(root: Path = Path("/")) -> Iterator[Power]:
    """The mean of the block; ``root`` stands for ``/``."""
    power = Power()
    packages = _packages(root)
    began_s = time.monotonic()
    if packages:
        yield power
        took_s = time.monotonic() - began_s
        used_uj = [_used_uj(package, before) for package, before in packages]
        known_uj = [used for used in used_uj if used is not None]
        if len(known_uj) == len(packages) and took_s > 0:
            power.watts = round(sum(known_uj) / 1e6 / took_s, 2)
        return
    samples_w: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while (watts := _sensor_w(root)) is not None:
            samples_w.append(watts)
            if over.wait(_SAMPLE_S):
                return

    sampling = threading.Thread(target=sample, name="power", daemon=True)
    sampling.start()
    try:
        yield power
    finally:
        over.set()
        sampling.join()
    if samples_w:
        power.watts = round(fmean(samples_w), 2)


def _packages(root: Path) -> list[tuple[Path, int]]:
    """RAPL's zones of whole packages (their parts have a second colon), each with its count."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    counts = [(zone, _number(zone / "energy_uj")) for zone in zones if zone.name.count(":") == 1]
    return [(zone, count) for zone, count in counts if count is not None]


def _used_uj(package: Path, before_uj: int) -> int | None:
    after_uj = _number(package / "energy_uj")
    if after_uj is None:
        return None
    if after_uj >= before_uj:
        return after_uj - before_uj
    range_uj = _number(package / "max_energy_range_uj")
    return None if range_uj is None else after_uj + range_uj - before_uj


def _sensor_w(root: Path) -> float | None:
    """The first sensor that gives an average."""
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*/power1_average")):
        if (microwatts := _number(sensor)) is not None:
            return microwatts / 1e6
    return None


def _number(path: Path) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None
