"""Another process that keeps a core of its own busy."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from edged.errors import ConfigError


def core_to_keep_busy() -> int:
    """The last of those that we may use. Raises ``ConfigError`` where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        raise ConfigError("--contention keeps one core busy, and there is no second one here")
    return cores[-1]


@contextlib.contextmanager
def busy(core: int) -> Iterator[None]:
    """While it lasts, a process spins on this core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        process.kill()
        process.wait()
