"""Whether the board is fit: temperature sensors, power supply, GPU driver and devices."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.hardware.cgroups import read_text
from edged.hardware.health import Finding, not_applicable, ok, warning
from edged.hardware.machine import Machine
from edged.hardware.schema import Profile, Thermal

_PLAUSIBLE_C: Final = (-40.0, 130.0)
_COOLING: Final = "give it a cooler with a fan, and air around it"
_SUPPLY: Final = (
    "use the board's own supply (Pi 5: 5 V 5 A, Pi 4: 5 V 3 A) and a short cable, and nothing "
    "hungry on USB"
)

# Bits of the firmware's get_throttled, as Raspberry Pi's documentation of vcgencmd has them;
# 16 higher: the same has happened since the start.
_THROTTLED: Final = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
_HAPPENED: Final = 16
_OF_THE_SUPPLY: Final = 1 << 0
_OF_HEAT: Final = 1 << 3


@dataclass(frozen=True)
class _Zone:
    kind: str
    temperature_c: float | None
    """``None`` where it does not answer, as a Jetson's zones that are off."""
    trips: tuple[tuple[str, float], ...]


def thermal(root: Path, profile: Profile | None) -> list[Finding]:
    """Whether the zone that the profile names can be read, and makes sense."""
    wanted = profile.thermal if profile else None
    if wanted and wanted.zone == "nvml":
        return [not_applicable("the GPU's temperature is NVML's to tell")]
    zones = _zones(root)
    if wanted is None:
        return [_hottest(zones)]
    zone = next((each for each in zones if each.kind == wanted.zone), None)
    if zone is None:
        there = ", ".join(sorted({each.kind for each in zones})) or "none"
        remedy = None
        if zones and profile:
            remedy = (
                f'write extends = "{profile.name}" and, under [thermal], the right zone = "…" to '
                f"/etc/edged/hw_profiles/{profile.name}.toml"
            )
        return [warning(f"the profile's thermal zone {wanted.zone} is not there: {there}", remedy)]
    return [_judged(zone, wanted), *_lower_trips(zone, wanted)]


def _judged(zone: _Zone, limits: Thermal) -> Finding:
    celsius = zone.temperature_c
    if celsius is None:
        return warning(f"{zone.kind} does not answer: edged cannot know when it gets hot")
    if not _is_plausible(celsius):
        return warning(f"{zone.kind} says {celsius:g} °C, which cannot be: a broken sensor")
    if celsius >= limits.act_c:
        return warning(
            f"{zone.kind} has {celsius:.0f} °C, and edged slows down from {limits.act_c:g} °C on",
            _COOLING,
        )
    return ok(f"{zone.kind} has {celsius:.0f} °C; edged slows down from {limits.act_c:g} °C on")


def _lower_trips(zone: _Zone, limits: Thermal) -> list[Finding]:
    """The kernel's own limits count where they are lower than the profile's."""
    ours = {"passive": limits.soft_c, "hot": limits.hard_c, "critical": limits.critical_c}
    return [
        ok(f"the kernel's {kind} trip point of {celsius:g} °C is below the profile's {limit:g} °C")
        for kind, celsius in zone.trips
        if (limit := ours.get(kind)) is not None and _is_plausible(celsius) and celsius < limit
    ]


def _hottest(zones: list[_Zone]) -> Finding:
    known = [
        (each.temperature_c, each.kind)
        for each in zones
        if each.temperature_c is not None and _is_plausible(each.temperature_c)
    ]
    if not known:
        return not_applicable("no temperature can be read, as in most virtual machines")
    celsius, kind = max(known)
    return ok(f"{len(known)} thermal zones; the hottest is {kind} with {celsius:.0f} °C")


def _zones(root: Path) -> list[_Zone]:
    folders = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    return [
        _Zone(
            (read_text(folder / "type") or folder.name).strip(),
            _millidegrees(folder / "temp"),
            _trips(folder),
        )
        for folder in folders
    ]


def _trips(folder: Path) -> tuple[tuple[str, float], ...]:
    kinds = {
        path.name.removesuffix("_type"): (read_text(path) or "").strip()
        for path in sorted(folder.glob("trip_point_*_type"))
    }
    read = ((kind, _millidegrees(folder / f"{name}_temp")) for name, kind in kinds.items())
    return tuple((kind, celsius) for kind, celsius in read if celsius is not None)


def _millidegrees(path: Path) -> float | None:
    text = (read_text(path) or "").strip()
    return int(text) / 1000 if re.fullmatch(r"-?\d+", text) else None


def _is_plausible(celsius: float) -> bool:
    low, high = _PLAUSIBLE_C
    return low < celsius < high and celsius != 0  # exactly 0 is a sensor that is not connected


def power(root: Path) -> list[Finding]:
    """Whether a Raspberry Pi gets the power it needs, and is not throttled."""
    bits = _throttled(root)
    found = []
    alarm = _under_voltage_alarm(root)
    if alarm and (bits is None or not bits & (_OF_THE_SUPPLY | _OF_THE_SUPPLY << _HAPPENED)):
        found.append(warning("the kernel's under-voltage alarm is on", _SUPPLY))
    if bits is not None:
        now, before = bits & 0xFFFF, bits >> _HAPPENED & ~bits
        found += [_throttling(each, when) for each, when in ((now, "now"), (before, "since boot"))]
    elif alarm is False:
        found.append(ok("no under-voltage alarm"))
    told = [finding for finding in found if finding.outcome != "ok"]
    return told or found[:1] or [not_applicable("only Raspberry Pis tell of their supply")]


def _throttling(bits: int, when: str) -> Finding:
    words = [word for bit, word in _THROTTLED.items() if bits >> bit & 1]
    if not words:
        return ok("no under-voltage and no throttling since boot")
    # Throttling without a word of the supply is heat.
    of_supply = bits & _OF_THE_SUPPLY
    remedies = [_SUPPLY] if of_supply else []
    if bits & _OF_HEAT or not of_supply:
        remedies.append(_COOLING)
    return warning(f"{when}: {', '.join(words)}", "; ".join(remedies))


def _throttled(root: Path) -> int | None:
    # The folder of the chip is soc on a Pi 4, soc@107c000000 on a Pi 5.
    for path in (root / "sys/devices/platform").glob("*/*firmware/get_throttled"):
        text = (read_text(path) or "").strip()
        if re.fullmatch(r"(0x)?[0-9a-f]+", text):
            return int(text, 16)
    return None


def _under_voltage_alarm(root: Path) -> bool | None:
    for folder in (root / "sys/class/hwmon").glob("hwmon*"):
        if (read_text(folder / "name") or "").strip() == "rpi_volt":
            return (read_text(folder / "in0_lcrit_alarm") or "").strip() == "1"
    return None


def gpu(root: Path, machine: Machine, *, has_nvml: bool) -> list[Finding]:
    """Whether driver, its binding and the devices' permissions let the GPU be used.

    ``has_nvml``: whether nvidia-ml-py is installed.
    """
    names = ("nvmap", "nvhost-gpu", "nvhost-ctrl-gpu")
    if not machine.tegra_release:
        names = ("nvidiactl", "nvidia0", "nvidia-uvm")
        missing = _without_driver(root, machine, has_nvml=has_nvml)
        if missing is not None:
            return [missing]
    nodes = [root / "dev" / name for name in names if (root / "dev" / name).exists()]
    closed = [f"/dev/{node.name}" for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        return [
            warning(
                f"this user may not use {', '.join(closed)}",
                "sudo usermod -aG video,render USER, for the user that edged runs as",
            )
        ]
    known = [f"{each.name}, driver {each.driver or 'unknown'}" for each in machine.gpus]
    return [ok("; ".join(known) or f"a Jetson's, Jetson Linux {machine.tegra_release}")]


def _without_driver(root: Path, machine: Machine, *, has_nvml: bool) -> Finding | None:
    """Why no GPU of a PC can be used; ``None`` when one can."""
    if machine.gpus:
        return None
    if (root / "proc/driver/nvidia/version").exists():
        if not has_nvml:
            return warning(
                "NVIDIA's driver is loaded, but nvidia-ml-py is missing, through which edged "
                "learns of the GPU",
                "pip install 'edged[nvidia]'",
            )
        return warning(
            "NVIDIA's driver is loaded, but its library does not answer, as after an update "
            "without a reboot",
            "sudo reboot; nvidia-smi says more",
        )
    if any(_is_nvidia_display(folder) for folder in (root / "sys/bus/pci/devices").glob("*")):
        return warning(
            "an NVIDIA GPU is in this machine, but its driver is not loaded",
            "install NVIDIA's driver (Debian: sudo apt install nvidia-driver; Ubuntu: sudo "
            "ubuntu-drivers install), then: sudo reboot",
        )
    return not_applicable("no NVIDIA GPU")


def _is_nvidia_display(folder: Path) -> bool:
    vendor, kind = ((read_text(folder / name) or "").strip() for name in ("vendor", "class"))
    return vendor == "0x10de" and kind.startswith("0x03")


def clock_cap(root: Path) -> Finding:
    """Whether the clock of the cores could be capped by this user; nice to have."""
    path = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq"
    if not path.exists():
        return not_applicable("the clock of the cores cannot be set here")
    if not os.access(path, os.W_OK):
        return not_applicable("this user may not cap the clock of the cores; edged can do without")
    return ok("the clock of the cores can be capped")
