"""How fast this machine reads memory, measured once.

Decoding reads every weight for every token, so its speed is bandwidth over bytes. Run as
``python -m edged.hardware.bandwidth`` it measures and prints JSON; ``measured_bandwidth``
runs that in a process of its own, because numpy stays out of the daemon.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edged.errors import EdgedError
from edged.hardware.memory import available

_BUFFER_BYTES: Final = 256 * 2**20
"""Far above the caches of boards and PCs (2 to 96 MiB)."""
_BUFFER_LEAST_BYTES: Final = 32 * 2**20
_MEASURE_S: Final = 0.4
_GIVE_UP_S: Final = 30
_CACHE_NAME: Final = "bandwidth.json"


def measured_bandwidth(state_dir: Path, identity: Mapping[str, str | int]) -> float:
    """Bytes a second that all allowed cores read together; under two seconds the first time.

    The figure is kept in ``state_dir`` and holds for the machine of ``identity``. Raises
    ``EdgedError`` where it cannot be measured; a state folder that cannot be written costs
    only the measurement at the next start.
    """
    cache = state_dir / _CACHE_NAME
    known = _cached(cache, identity)
    if known is not None:
        return known
    measured = _measure_apart()
    temporary = cache.with_suffix(f".{os.getpid()}.part")
    with suppress(OSError):
        state_dir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(
            json.dumps({"machine": dict(identity), "read_bytes_per_s": measured}), "utf-8"
        )
        temporary.replace(cache)
    return measured


def _cached(cache: Path, identity: Mapping[str, str | int]) -> float | None:
    try:
        kept = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("machine") != dict(identity):
        return None
    return _speed(kept)


def _speed(answer: Any) -> float | None:
    value = answer.get("read_bytes_per_s") if isinstance(answer, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        return None
    return float(value)


def _measure_apart() -> float:
    command = [sys.executable, "-m", "edged.hardware.bandwidth"]
    try:
        done = subprocess.run(  # noqa: S603 (our own module)
            command, capture_output=True, text=True, timeout=_GIVE_UP_S, check=True
        )
        speed = _speed(json.loads(done.stdout))
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        raise EdgedError(f"the memory's bandwidth cannot be measured: {reason}") from None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise EdgedError(f"the memory's bandwidth cannot be measured: {error}") from None
    if speed is None:
        raise EdgedError("the memory's bandwidth cannot be measured: no figure came back")
    return speed


def _measure(buffer_bytes: int, threads: int) -> float:
    """Bytes a second of the best pass: what the memory can do, not what others left of it."""
    import numpy as np  # noqa: PLC0415 (never in the daemon)

    numbers = np.ones(max(buffer_bytes // 8, threads), np.uint64)
    parts = np.array_split(numbers, threads)
    best = 0.0
    started = time.perf_counter()
    while time.perf_counter() - started < _MEASURE_S or not best:
        # Sums are vectorised loads and adds, and run without the interpreter's lock.
        readers = [threading.Thread(target=np.sum, args=(part,)) for part in parts]
        begun = time.perf_counter()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        best = max(best, numbers.nbytes / (time.perf_counter() - begun))
    return best


def _main() -> None:
    room_bytes = available().bytes // 8
    if room_bytes < _BUFFER_LEAST_BYTES:
        sys.exit(
            f"{room_bytes * 8 // 2**20} MiB are available, and it takes an eighth of "
            f"{_BUFFER_LEAST_BYTES * 8 // 2**20} MiB to be above the caches"
        )
    read_bytes_per_s = _measure(min(_BUFFER_BYTES, room_bytes), len(os.sched_getaffinity(0)))
    print(json.dumps({"read_bytes_per_s": round(read_bytes_per_s)}))  # noqa: T201


if __name__ == "__main__":
    _main()
