"""The tools of the tests of scarce memory, tried by themselves."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgroup import MemoryGroup, NoGroup, make_group, memory_group
from memory_neighbour import Neighbour

from edged.hardware.cgroups import Group
from edged.hardware.memory import available

MIB = 2**20
LIMIT_MIB = 200
PYTHON_MIB = 30
"""More than an interpreter takes, and what its growing touches beside."""


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group(LIMIT_MIB * MIB) as group:
        yield group


def test_a_group_has_its_limit(group: MemoryGroup) -> None:
    assert group.limit_bytes == LIMIT_MIB * MIB


def test_a_limit_can_be_raised_and_lowered(group: MemoryGroup) -> None:
    for mib in (2 * LIMIT_MIB, LIMIT_MIB):
        group.limit(mib * MIB)
        assert group.limit_bytes == mib * MIB


def test_what_a_neighbour_takes_is_counted(group: MemoryGroup) -> None:
    with Neighbour(group.folder, step_mib=20, every_s=0.01) as neighbour:
        neighbour.grow_to(80)
        assert neighbour.process.pid in group.pids
        assert group.usage_bytes >= 80 * MIB


def test_what_a_neighbour_takes_is_missing_to_others_of_the_group(group: MemoryGroup) -> None:
    with Neighbour(group.folder, step_mib=20, every_s=0.01) as neighbour:
        neighbour.grow_to(80)
        left = available(pid=neighbour.process.pid)
    assert left.bytes <= (LIMIT_MIB - 80) * MIB
    assert group.folder.name in left.limited_by


def test_a_neighbour_that_ended_has_given_all_back(group: MemoryGroup) -> None:
    with Neighbour(group.folder, step_mib=20, every_s=0.01) as neighbour:
        neighbour.grow_to(80)
    assert group.pids == []
    assert group.usage_bytes < PYTHON_MIB * MIB


def test_a_neighbour_that_wants_more_than_the_limit_is_killed_and_counted(
    group: MemoryGroup,
) -> None:
    with Neighbour(group.folder, step_mib=20, every_s=0.01) as neighbour:
        assert neighbour.process.wait(30) == -signal.SIGKILL
    assert group.oom_kills == 1


def test_a_group_is_gone_at_the_end() -> None:
    with memory_group(LIMIT_MIB * MIB) as group:
        pass
    assert not group.folder.exists()


def test_where_no_group_can_be_made_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgroup.groups", lambda *_: ())
    with pytest.raises(NoGroup, match="no control groups"):
        make_group(f"edged-test-{os.getpid()}")


def test_a_group_of_v2_that_keeps_the_controller_to_itself_is_no_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    monkeypatch.setattr("cgroup.groups", lambda *_: (Group("/", tmp_path, 2),))
    with pytest.raises(NoGroup, match="does not hand the memory controller on"):
        make_group(f"edged-test-{os.getpid()}")


def test_in_v2_the_same_is_found_under_other_names(tmp_path: Path) -> None:
    files = {
        "memory.max": "max\n",
        "memory.swap.max": "max\n",
        "memory.current": "4096\n",
        "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    group = MemoryGroup(tmp_path, version=2)

    assert (group.limit_bytes, group.usage_bytes, group.oom_kills) == (None, 4096, 1)
    group.limit(LIMIT_MIB * MIB)
    assert group.limit_bytes == LIMIT_MIB * MIB
    assert (tmp_path / "memory.swap.max").read_text() == "0"
