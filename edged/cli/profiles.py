"""``edged profiles``: the hardware profiles there are, and which one this machine has."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged.errors import EdgedError
from edged.hardware.detect import Detection, detect
from edged.hardware.memory import available
from edged.hardware.profile import Profile, profile_folders, read_profile, survey
from edged.settings import load_settings

# The ends of key names that are units, and how they are written.
_UNITS = {
    "mib": "MiB",
    "kib": "KiB",
    "gb_per_s": "GB/s",
    "tokens_per_s": "tokens/s",
    "k_per_w": "K/W",
    "mhz": "MHz",
    "tokens": "tokens",
    "watts": "W",
    "c": "°C",
    "s": "s",
}


@click.group(name="profiles")
def command() -> None:
    """List, show or detect hardware profiles."""


@command.command(name="list")
def list_() -> None:
    """List the profiles that are shipped and those in /etc/edged/hw_profiles."""
    found = survey()
    shipped = profile_folders()[0]
    try:
        mine = detect().profile.name
    except EdgedError:  # then none is marked; `detect` says why
        mine = None
    table = Table("", "profile", "description", "memory", "decodes at", "needs", "source")
    for name, profile in found.profiles.items():
        table.add_row(
            "→" if name == mine else "",
            name,
            profile.description,
            _memory(profile),
            _bandwidth(profile),
            f"{profile.min_tokens_per_s:g} tokens/s",
            "shipped" if profile.path.parent == shipped else str(profile.path),
        )
    for name, error in found.broken.items():
        table.add_row("", name, Text(str(error), style="red"), "", "", "", "", style="dim")
    Console(markup=False).print(table)


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The profile as it is.")
def show(name: str, as_json: bool) -> None:
    """Show what the profile NAME says, with what it extends merged in."""
    profile = read_profile(name)
    if as_json:
        click.echo(profile.model_dump_json(indent=2, exclude_defaults=True))
        return
    table = Table(show_header=False)
    for label, value in _facts(profile.model_dump(mode="json", exclude_defaults=True)):
        table.add_row(label, value)
    Console(markup=False).print(table)


@command.command(name="detect")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def detect_(config: Path | None, as_json: bool) -> None:
    """Say which profile this machine has and why, and what memory there is now.

    The first time on a machine without a profile of its own measures its memory: two seconds.
    """
    found = detect(state_dir=load_settings(config).state_dir)
    now = available()
    if as_json:
        click.echo(json.dumps(_answer(found, now.bytes, now.limited_by), indent=2))
        return
    table = Table(show_header=False)
    table.add_row("profile", f"{found.profile.name}: {found.profile.description}")
    table.add_row("because", "\n".join(found.evidence))
    table.add_row("memory", _memory(found.profile))
    table.add_row("available now", f"{_gib(now.bytes)}, limited by {now.limited_by}")
    for gpu in found.machine.gpus:
        sizes = f"{_gib(gpu.free_bytes)} free of {_gib(gpu.total_bytes)}"
        table.add_row("GPU", f"{gpu.name}, {sizes}, driver {gpu.driver or 'unknown'}")
    table.add_row("decodes at", _bandwidth(found.profile))
    Console(markup=False).print(table)


def _answer(found: Detection, available_bytes: int, limited_by: str) -> dict[str, Any]:
    return {
        "profile": found.profile.name,
        "description": found.profile.description,
        "evidence": found.evidence,
        "available": {"bytes": available_bytes, "limited_by": limited_by},
        "decode_bytes_per_s": found.profile.bandwidth.decode_bytes_per_s,
        "gpus": [vars(gpu) for gpu in found.machine.gpus],
        "merged": found.profile.model_dump(mode="json", exclude_defaults=True),
    }


def _facts(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Every value with its unit, one row each; one row, too, for a table of a list."""
    if isinstance(value, dict):
        return [fact for key, each in value.items() for fact in _facts(each, (*path, key))]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [
            (_label((*path, str(row))), "; ".join(f"{name} {text}" for name, text in _facts(each)))
            for row, each in enumerate(value, start=1)
        ]
    *tables, key = path
    ends = (end for end in _UNITS if key == end or key.endswith(f"_{end}"))
    unit = max(ends, key=len, default=None)
    name = key if unit in (None, key) else key.removesuffix(f"_{unit}")
    shown = ", ".join(map(str, value)) if isinstance(value, list) else _plain(value)
    return [(_label((*tables, name)), f"{shown} {_UNITS[unit]}" if unit else shown)]


def _label(path: tuple[str, ...]) -> str:
    # The names of definitions for CMake stay as they are.
    return " ".join(part.replace("_", " ") if part.islower() else part for part in path)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _memory(profile: Profile) -> str:
    memory = profile.memory
    if memory.vram_mib:
        return f"{_gib(memory.vram_bytes)} VRAM"
    kind = " unified" if memory.unified else ""
    return "as found" if memory.total_bytes is None else f"{_gib(memory.total_bytes)}{kind}"


def _bandwidth(profile: Profile) -> str:
    decode = profile.bandwidth.decode_gb_per_s
    return "measured" if decode is None else f"{decode:g} GB/s"


def _gib(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / 2**30:.1f} GiB"
