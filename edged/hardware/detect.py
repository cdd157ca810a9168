"""Find the hardware profile that is this machine's.

The rules are data: each profile's ``match`` (``edged.hardware.schema``). The most specific
rule that holds wins; a machine that only its architecture fits gets a generic profile,
filled in with what it says of itself and with the bandwidth that was measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from edged.errors import ConfigError, EdgedError
from edged.hardware.bandwidth import measured_bandwidth
from edged.hardware.gpu import Gpu
from edged.hardware.gpu import gpus as nvml_gpus
from edged.hardware.machine import Machine, read_machine
from edged.hardware.profile import survey
from edged.hardware.schema import Match, Profile

_MIB: Final = 2**20

Measure = Callable[[Path, dict[str, str | int]], float]

DECODE_SHARE_OF_READS: Final = 0.7
"""How much of the measured read bandwidth decoding gets.

The measurement is of long reads by every core and nothing else; decoding also unpacks
weights, waits for its slowest thread many times a layer, and reads the KV cache. The shape
of Phi-3-mini in Q4_K_M (2.39 GB) decoded 12.8 to 15.7 tokens/s, 31 to 38 GB/s, on two cores
whose reads measured 33 to 48 GB/s from one hour to another; this is the cautious end.
"""

# How much each condition says. A board's own name outweighs all that several kinds share.
_WEIGHTS: Final = {
    "device_tree_compatible": 64,
    "device_tree_model": 64,
    "gpu_name": 64,
    "cpu_model": 16,
    "tegra_release": 8,
    "gpu_memory_mib": 4,
    "memory_mib": 4,
    "architecture": 1,
}


@dataclass(frozen=True)
class Detection:
    """The profile, complete, and in words what spoke for it."""

    profile: Profile
    evidence: tuple[str, ...]
    machine: Machine


def detect(
    root: Path = Path("/"),
    *,
    folders: Sequence[Path] | None = None,
    architecture: str | None = None,
    gpus: Callable[[], tuple[Gpu, ...]] = nvml_gpus,
    state_dir: Path | None = None,
    measure: Measure = measured_bandwidth,
) -> Detection:
    """Find and complete this machine's profile; ``root`` stands for ``/``.

    ``state_dir`` keeps the bandwidth of a machine whose profile has none; without it nothing
    is measured, and ``bandwidth.decode_bytes_per_s`` stays ``None``. Raises ``ConfigError``
    where no profile matches.
    """
    machine = read_machine(root, architecture=architecture, gpus=gpus)
    found = survey(folders)
    best: tuple[int, Profile, tuple[str, ...]] | None = None
    for profile in found.profiles.values():
        for match in profile.match:
            evidence = _holds(match, machine)
            weight = sum(_WEIGHTS[name] for name in match.model_fields_set)
            # The operator's come last, and win where rules weigh the same.
            if evidence and (best is None or weight >= best[0]):
                best = (weight, profile, evidence)
    broken = tuple(f"left out: {error}" for error in found.broken.values())
    if best is None:
        raise ConfigError(
            f"no hardware profile matches this machine ({machine.architecture}); write one "
            "(docs/hw-profiles.md)" + "".join(f"; {each}" for each in broken)
        )
    profile, filled = completed(best[1], machine, state_dir, measure)
    return Detection(profile, (*best[2], *filled, *broken), machine)


def completed(
    profile: Profile,
    machine: Machine,
    state_dir: Path | None = None,
    measure: Measure = measured_bandwidth,
) -> tuple[Profile, tuple[str, ...]]:
    """A profile with what it leaves open read from ``machine`` or measured, and in words what."""
    profile, words = _filled(profile, machine)
    if profile.bandwidth.decode_gb_per_s is not None or state_dir is None:
        return profile, words
    try:
        read_bytes_per_s = measure(state_dir, machine.identity)
    except EdgedError as error:
        return profile, (*words, str(error))
    decode = round(read_bytes_per_s * DECODE_SHARE_OF_READS / 1e9, 1)
    profile = _with(profile, "bandwidth", decode_gb_per_s=max(decode, 0.1))
    share = f"of which decoding gets {DECODE_SHARE_OF_READS:.0%}"
    return profile, (*words, f"memory reads measured: {read_bytes_per_s / 1e9:.1f} GB/s, {share}")


def _holds(match: Match, machine: Machine) -> tuple[str, ...]:
    """Each condition in words, as the machine fulfils it; empty if one fails."""
    words: list[str] = []
    for name in sorted(match.model_fields_set, key=lambda each: -_WEIGHTS[each]):
        held = _fulfilled(name, getattr(match, name), machine)
        if held is None:
            return ()
        words.append(f"{name.removesuffix('_mib').replace('_', ' ')}: {held}")
    return tuple(words)


def _fulfilled(name: str, condition: tuple[Any, ...], machine: Machine) -> str | None:
    """What of the machine meets one condition."""
    gpu_mib = [gpu.total_bytes // _MIB for gpu in machine.gpus if gpu.total_bytes is not None]
    sizes = {"memory_mib": [machine.memory_bytes // _MIB], "gpu_memory_mib": gpu_mib}
    if name in sizes:
        low, high = condition
        return next((f"{mib} MiB" for mib in sizes[name] if low <= mib <= high), None)
    names = {
        "device_tree_model": [machine.device_tree_model],
        "device_tree_compatible": machine.device_tree_compatible,
        "gpu_name": [gpu.name for gpu in machine.gpus],
        "cpu_model": [machine.cpu_model],
        "tegra_release": [machine.tegra_release],
        "architecture": [machine.architecture],
    }[name]
    fits = (text for text in names if any(fnmatchcase(text, pattern) for pattern in condition))
    return next(fits, None)


def _filled(profile: Profile, machine: Machine) -> tuple[Profile, tuple[str, ...]]:
    """What the profile leaves open, as the machine has it; and what that was, in words."""
    read: dict[str, dict[str, Any]] = {
        "memory": {"total_mib": machine.memory_bytes // _MIB},
        "cpu": {
            "cores": machine.cores,
            "threads_prefill": machine.cores,
            "threads_decode": machine.cores,
            "isa": machine.isa,
        },
    }
    words: list[str] = []
    for table, values in read.items():
        missing = {key: value for key, value in values.items() if not _get(profile, table, key)}
        profile = _with(profile, table, **missing)
        words += [
            f"read from the machine: {table}.{key} = {_text(missing[key])}" for key in missing
        ]
    return profile, tuple(words)


def _get(profile: Profile, table: str, key: str) -> Any:
    return getattr(getattr(profile, table), key)


def _with(profile: Profile, table: str, **values: Any) -> Profile:
    changed = getattr(profile, table).model_copy(update=values)
    return profile.model_copy(update={table: changed})


def _text(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)
