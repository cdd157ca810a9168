"""A simulated board for real nodes, whose temperature the test decides."""

import random
import threading
from pathlib import Path

MOVE_S, MOVE_C = 0.1, 2.0


class Board:
    """The sensors' files of a Raspberry Pi, which gets as hot as the test says: soon, not at once,
    and with the noise of a real sensor."""

    def __init__(self, root: Path) -> None:
        self._zone = root / "sys/class/thermal/thermal_zone0"
        self._zone.mkdir(parents=True)
        (self._zone / "type").write_text("cpu-thermal\n")
        (root / "proc").mkdir()
        for name in ("meminfo", "self"):
            (root / "proc" / name).symlink_to(f"/proc/{name}")
        self._now_c = self._then_c = 50.0
        self._is_lost = False
        self._over = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def heat(self, temperature_c: float) -> None:
        self._then_c = temperature_c

    def lose(self) -> None:
        self._is_lost = True

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(MOVE_S):
            self._now_c += min(max(self._then_c - self._now_c, -MOVE_C), MOVE_C)
            if self._is_lost:
                (self._zone / "temp").unlink(missing_ok=True)
            else:
                self._write()

    def _write(self) -> None:
        file = self._zone / "temp.new"
        file.write_text(f"{round((self._now_c + random.uniform(-0.2, 0.2)) * 1000)}\n")
        file.replace(self._zone / "temp")
