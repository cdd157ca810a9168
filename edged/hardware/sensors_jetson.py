"""A Jetson's over-current counters: they only ever grow, so what tells is their rate."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edged.hardware.plausible import COUNT
from edged.hardware.sensors_files import file_sensor, found

_OVER_S: Final = 10.0
"""A single event is no storm of two a second."""
_PLACE: Final = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon*/oc[123]_event_cnt"


class OverCurrents:
    """Of a Jetson; on any other machine it says nothing."""

    def __init__(self, root: Path, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._counters = [
            file_sensor(Path(path).name, path, COUNT, monotonic) for path in found(root, _PLACE)
        ]
        self._counted: deque[tuple[float, float]] = deque()

    def read(self) -> tuple[float | None, tuple[str, ...]]:
        """Events a second over the last ten, ``None`` until known; and faults."""
        counts = [counter.read() for counter in self._counters]
        faults = tuple(filter(None, (counter.fault for counter in self._counters)))
        known = [count for count in counts if count is not None]
        if not counts or len(known) < len(counts):
            return None, faults
        now_s, total = self._monotonic(), sum(known)
        if self._counted and total < self._counted[-1][1]:  # the driver was loaded anew
            self._counted.clear()
        self._counted.append((now_s, total))
        while len(self._counted) > 2 and now_s - self._counted[1][0] >= _OVER_S:
            self._counted.popleft()
        since_s, before = self._counted[0]
        return ((total - before) / (now_s - since_s) if now_s > since_s else None), faults
