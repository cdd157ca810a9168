"""A memory control group of the tests' own, cgroup v1 or v2."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.hardware.cgroups import Group, groups

LEAVE_S = 30.0
UNLIMITED_BYTES = 2**62
"""More than this is how v1 writes that there is no limit."""


class NoGroup(Exception):
    """A group cannot be made here; the message says why."""


class MemoryGroup:
    """One control group; swap is no way out of its limit."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self._is_v2 = version == 2

    def limit(self, limit_bytes: int) -> None:
        """Allow so much; less than what is in use now makes the kernel drop files, or kill."""
        if self._is_v2:
            (self.folder / "memory.max").write_text(str(limit_bytes))
            self._write_if_there("memory.swap.max", 0)
            return
        files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        if limit_bytes > (self.limit_bytes or UNLIMITED_BYTES):
            files.reverse()  # with swap it may never be less than without
        for file in files:
            self._write_if_there(file, limit_bytes)

    def add(self, pid: int) -> None:
        """Put a process in; what it has allocated before is not counted."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    @property
    def limit_bytes(self) -> int | None:
        """``None`` where there is none."""
        text = self._read("memory.max" if self._is_v2 else "memory.limit_in_bytes")
        return None if text == "max" or int(text) > UNLIMITED_BYTES else int(text)

    @property
    def usage_bytes(self) -> int:
        """With the pages of files that were read."""
        return int(self._read("memory.current" if self._is_v2 else "memory.usage_in_bytes"))

    @property
    def oom_kills(self) -> int:
        """Processes of the group that the kernel ended for want of memory."""
        text = self._read("memory.events" if self._is_v2 else "memory.oom_control")
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        assert found, text
        return int(found[1])

    @property
    def pids(self) -> list[int]:
        """Who is in it."""
        return [int(pid) for pid in self._read("cgroup.procs").split()]

    def remove(self) -> None:
        """As soon as the last process has left."""
        until_s = time.monotonic() + LEAVE_S
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.folder} still holds the processes {self.pids}")

    def _read(self, file: str) -> str:
        return (self.folder / file).read_text().strip()

    def _write_if_there(self, file: str, number: int) -> None:
        """Files about swap are missing where the kernel does not count it."""
        if (self.folder / file).exists():
            (self.folder / file).write_text(str(number))


def make_group(name: str) -> MemoryGroup:
    """Without a limit. Raises ``NoGroup``."""
    problems = []
    for parent in groups(Path("/"), "self", "memory"):
        if problem := _why_not(parent):
            problems.append(f"{parent.folder}: {problem}")
            continue
        try:
            (parent.folder / name).mkdir()
        except OSError as error:
            problems.append(f"{parent.folder}: {error.strerror}")
            continue
        return MemoryGroup(parent.folder / name, parent.version)
    raise NoGroup("; ".join(problems) or "no control groups are mounted")


def _why_not(parent: Group) -> str | None:
    """A group of v2 hands the controller on, or holds processes; none but the root does both."""
    if parent.version == 1:
        return None
    try:
        handed_on = (parent.folder / "cgroup.subtree_control").read_text().split()
    except OSError as error:
        return error.strerror
    return None if "memory" in handed_on else "does not hand the memory controller on"


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group with a limit, gone at the end; skips the test where none can be made."""
    try:
        group = make_group(f"edged-test-{os.getpid()}")
    except NoGroup as problem:
        pytest.skip(f"cannot make a memory control group: {problem}")
    try:
        group.limit(limit_bytes)
        yield group
    finally:
        group.remove()
