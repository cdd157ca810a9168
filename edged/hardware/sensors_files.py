"""Files of /sys and /proc that are read twice a second: by a path that was looked up once."""

import errno
import glob
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edged.hardware.plausible import Kind, Plausible

GONE: Final = "is not there any more"
EMPTY: Final = "reads empty"
NO_NUMBER: Final = "reads what is no number"
LOOK_AGAIN_S: Final = 10.0
"""What is missing is looked for so often."""

_LONGEST_BYTES: Final = 4096
_LONGEST_NAME: Final = 40
# Longer numbers would not fit the kernel's own types.
_DECIMAL: Final = re.compile(rb"-?\d{1,18}")
_HEXADECIMAL: Final = re.compile(rb"(?:0x)?[0-9a-fA-F]{1,8}")


class FileSensor:
    """One number in a file, divided by ``divisor``; believed only where it is plausible."""

    def __init__(
        self,
        plausible: Plausible,
        path: str,
        monotonic: Callable[[], float],
        *,
        divisor: int = 1,
        base: int = 10,
    ) -> None:
        self.path = path
        self.is_gone = False
        """Whether the file was not there when last read."""
        self.plausible = plausible
        self._monotonic = monotonic
        self._divisor = divisor
        self._base = base

    def read(self, watts: float | None = None) -> float | None:
        """``None`` where it cannot be believed; ``fault`` says why."""
        began_s = self._monotonic()
        if not self.plausible.is_due(began_s):
            return None
        raw = number(self.path, self._base)
        took_s = self._monotonic() - began_s
        self.is_gone = raw == GONE
        given = raw if isinstance(raw, str) else raw / self._divisor
        return self.plausible.weigh(given, began_s, took_s, watts)

    @property
    def fault(self) -> str | None:
        return self.plausible.fault(self._monotonic())


def file_sensor(
    name: str,
    path: str,
    kind: Kind,
    monotonic: Callable[[], float],
    *,
    divisor: int = 1,
    base: int = 10,
) -> FileSensor:
    """One that nothing is known of yet."""
    return FileSensor(Plausible(name, kind), path, monotonic, divisor=divisor, base=base)


def number(path: str, base: int = 10) -> int | str:
    """The number in a file's first line, or in words why there is none. Never raises."""
    try:
        line = first_bytes(path).partition(b"\n")[0].strip()
    except (FileNotFoundError, NotADirectoryError):
        return GONE
    except OSError as error:
        return f"does not answer ({errno_name(error)})"
    except ValueError:  # a name that no file can have
        return GONE
    if not line:
        return EMPTY
    pattern = _DECIMAL if base == 10 else _HEXADECIMAL
    return int(line, base) if pattern.fullmatch(line) else NO_NUMBER


def first_bytes(path: str) -> bytes:
    """At most a page. Raises ``OSError``, and ``ValueError`` for a name that cannot be."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, _LONGEST_BYTES)
    finally:
        os.close(file)


def name_in(path: str) -> str:
    """A name such as a zone's type, printable and short; empty where there is none."""
    try:
        line = first_bytes(path).partition(b"\n")[0]
    except (OSError, ValueError):
        return ""
    text = line.decode("utf-8", errors="replace")
    return "".join(filter(str.isprintable, text)).strip()[:_LONGEST_NAME]


def found(root: Path, pattern: str) -> list[str]:
    """The paths below ``root`` that match, hwmon2 before hwmon10."""
    # Unlike Path's, it passes over what fails.
    paths = glob.glob(pattern, root_dir=root)  # noqa: PTH207
    return [str(root / path) for path in sorted(paths, key=lambda path: (len(path), path))]


def errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown error")
