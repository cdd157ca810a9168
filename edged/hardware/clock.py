"""A cap on the clock of the cores, where provisioning has granted that file to us.

Documentation/admin-guide/pm/cpufreq.rst: ``scaling_max_freq``, in kHz, one for each policy. The
hardware's own limits are ``cpuinfo_min_freq`` and ``cpuinfo_max_freq``.

A daemon that is killed leaves its cap behind. So what was there before is written down in
``$RUNTIME_DIRECTORY`` while there is one, and ``python -m edged.hardware.clock`` puts it back:
the service's ExecStopPost=.
"""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.hardware.sensors_files import errno_name, found, number

_KHZ: Final = 1000
_RECORD: Final = "clock"
"""The file's name; a line for each policy: kHz, a space, the path."""


@dataclass(frozen=True)
class _Policy:
    path: str
    lowest_khz: int
    before_khz: int
    """What somebody else allows: never more than that."""


class Clock:
    """Of all cores that have one; ``root`` stands for ``/``. Nothing here raises."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._policies = tuple(_policies(root))
        self._record = _record()
        self._mhz: int | None = None
        self.fault: str | None = None
        """Why the cap could not be set when last tried."""

    @property
    def available_mhz(self) -> tuple[int, int] | None:
        """The lowest and highest that can be asked for; ``None`` where none may be set."""
        if not self._policies:
            return None
        lowest_khz = min(policy.lowest_khz for policy in self._policies)
        highest_khz = max(policy.before_khz for policy in self._policies)
        return lowest_khz // _KHZ, highest_khz // _KHZ

    def cap(self, mhz: int | None) -> None:
        """No core above this from now on; ``None`` allows what was allowed at first."""
        if mhz == self._mhz and self.fault is None:
            return
        if mhz is not None and self._mhz is None:
            self._write_down()
        faults = [self._write(policy, mhz) for policy in self._policies]
        self.fault = next(filter(None, faults), None)  # and it is tried again when next asked
        self._mhz = mhz
        if mhz is None and self.fault is None and self._record is not None:
            with contextlib.suppress(OSError):
                self._record.unlink(missing_ok=True)

    def restore(self) -> None:
        """Leave everything as it was found."""
        self.cap(None)

    def _write_down(self) -> None:
        """For whoever comes after a daemon that was killed; without, there is the cap alone."""
        lines = [f"{policy.before_khz} {policy.path}\n" for policy in self._policies]
        if self._record is not None and lines:
            with contextlib.suppress(OSError):
                self._record.write_text("".join(lines))

    def _write(self, policy: _Policy, mhz: int | None) -> str | None:
        khz = policy.before_khz
        if mhz is not None:
            khz = min(max(mhz * _KHZ, policy.lowest_khz), policy.before_khz)
        try:
            Path(policy.path).write_text(f"{khz}\n")
        except OSError as error:
            name = Path(policy.path).parent.name
            return f"clock: scaling_max_freq of {name} cannot be set ({errno_name(error)})"
        return None


def _policies(root: Path) -> list[_Policy]:
    policies = []
    for path in found(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq"):
        lowest_khz = number(str(Path(path).with_name("cpuinfo_min_freq")))
        before_khz = number(path)
        if isinstance(lowest_khz, str) or isinstance(before_khz, str):
            continue
        if 0 < lowest_khz <= before_khz and os.access(path, os.W_OK):
            policies.append(_Policy(path, lowest_khz, before_khz))
    return policies


def _record() -> Path | None:
    folder = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(folder) / _RECORD if folder else None


def restore_after_a_kill() -> None:
    """Put back what a daemon wrote down that could not do so itself. Says what it did."""
    record = _record()
    try:
        lines = record.read_text().splitlines() if record is not None else []
    except OSError:
        return  # nothing was capped
    for line in lines:
        khz, _, path = line.partition(" ")
        try:
            Path(path).write_text(f"{khz}\n")
        except OSError as error:
            sys.stderr.write(f"clock: {path} cannot be set to {khz} kHz: {error.strerror}\n")
        else:
            sys.stderr.write(f"clock: {path} is {khz} kHz again\n")


if __name__ == "__main__":
    restore_after_a_kill()
