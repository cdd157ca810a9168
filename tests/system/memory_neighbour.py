"""A neighbour that takes memory: a program, and the tests' hold on it.

    python memory_neighbour.py GROUP_FOLDER STEP_MIB EVERY_S

It enters the control group, then grows by as much each time, touches every page and prints its size
as a line of JSON. A line on stdin makes it stay as large as it is; the end of stdin ends it.
"""

import json
import mmap
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 2**20
END_S = 30.0


def main(group: Path, step_mib: int, every_s: float) -> None:
    # Should the kernel have to kill somebody after all, then nobody else.
    Path("/proc/self/oom_score_adj").write_text("1000")
    (group / "cgroup.procs").write_text("0")
    taken: list[mmap.mmap] = []
    is_growing = True
    while True:
        if is_growing:
            taken.append(touched(step_mib * MIB))
            sys.stdout.write(json.dumps({"mib": len(taken) * step_mib}) + "\n")
            sys.stdout.flush()
        ready, _, _ = select.select([sys.stdin], [], [], every_s if is_growing else None)
        if ready:
            if not sys.stdin.readline():
                return
            is_growing = False


def touched(size_bytes: int) -> mmap.mmap:
    """Pages are the kernel's until somebody writes to them."""
    pages = mmap.mmap(-1, size_bytes)
    for offset in range(0, size_bytes, mmap.PAGESIZE):
        pages[offset] = 1
    return pages


class Neighbour:
    """One that runs; ends with the ``with`` statement, if not before."""

    def __init__(self, group: Path, step_mib: int, every_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(group), str(step_mib), str(every_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def grown_mib(self) -> int:
        """Its size after the next time that it grows."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the neighbour ended with exit code {self.process.wait(END_S)}"
        return int(json.loads(line)["mib"])

    def grow_to(self, mib: int) -> None:
        """Wait until it is so large, and let it stay so."""
        while self.grown_mib() < mib:
            pass
        self.hold()

    def hold(self) -> None:
        """Grow no more."""
        assert self.process.stdin is not None
        self.process.stdin.write("hold\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Give all back."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.communicate(timeout=END_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
