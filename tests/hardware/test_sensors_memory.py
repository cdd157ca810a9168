"""Memory that is left, stalls, and limits that were met along the whole path."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edged.hardware.sensors_memory import MemorySensors
from edged.messages import MemoryReading

PSI = "some avg10={} avg60=0.10 avg300=0.02 total=42136\nfull avg10=0.00 avg60=0.00 total=4\n"


def read(tree: Any, gpu_free_bytes: int | None = None) -> MemoryReading:
    reading, fault = MemorySensors(tree.root, "self", lambda: 0.0).read(gpu_free_bytes)
    assert fault is None
    assert reading is not None
    return reading


def test_a_machine_with_neither_groups_nor_pressure(tree: Any) -> None:
    tree.memory(8_000_000, 6_000_000)

    assert read(tree) == MemoryReading(
        available_bytes=6_000_000 * 1024, total_bytes=8_000_000 * 1024, limited_by="MemAvailable"
    )


def test_a_gpus_memory_is_handed_through(tree: Any) -> None:
    assert read(tree, 5).gpu_free_bytes == 5


def test_the_limit_of_a_group_counts(tree: Any) -> None:
    tree.unified_cgroup("/edged", memory__max=str(2**30), memory__current=str(2**29))

    assert (read(tree).available_bytes, read(tree).limited_by) == (2**29, "memory.max of /edged")


def test_pressure_is_a_share_of_time(tree: Any) -> None:
    tree.write("proc/pressure/memory", PSI.format("12.50"))

    assert read(tree).stalled_share == 0.125


def test_the_worst_pressure_on_the_path_counts(tree: Any) -> None:
    tree.write("proc/pressure/memory", PSI.format("1.00"))
    tree.unified_cgroup("/a.slice/edged", memory__pressure=PSI.format("2.00"))
    tree.group("sys/fs/cgroup/a.slice", memory__pressure=PSI.format("30.00"))

    assert read(tree).stalled_share == 0.3


def test_pressure_that_somebody_waits_to_be_told_of_is_not_read(tree: Any) -> None:
    tree.write("proc/pressure/memory", PSI.format("1.00"))
    tree.unified_cgroup("/edged", memory__pressure=PSI.format("30.00"))
    waited_for = str(tree.root / "sys/fs/cgroup/edged/memory.pressure")

    sensors = MemorySensors(tree.root, "self", lambda: 0.0, lambda path: path == waited_for)
    reading, _ = sensors.read()

    assert reading is not None
    assert reading.stalled_share == 0.01


@pytest.mark.parametrize("text", ["", "rubbish", "some avg10=x ", "full avg10=1.00 "])
def test_pressure_that_cannot_be_understood_is_unknown(tree: Any, text: str) -> None:
    tree.write("proc/pressure/memory", text)

    assert read(tree).stalled_share is None


def test_a_pressure_file_that_fails_is_unknown(tree: Any) -> None:
    (tree.root / "proc/pressure/memory").mkdir(parents=True)

    assert read(tree).stalled_share is None


def test_limits_that_were_met_are_counted_along_the_path(tree: Any) -> None:
    tree.unified_cgroup("/a.slice/edged", memory__events__local="low 0\nhigh 0\nmax 3\noom 1\n")
    tree.group("sys/fs/cgroup/a.slice", memory__events__local="max 4\n", memory__events="max 90\n")

    assert read(tree).limit_events == 7


def test_an_older_kernels_events_are_those_of_all_below(tree: Any) -> None:
    tree.unified_cgroup("/edged", memory__events="low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\n")

    assert read(tree).limit_events == 3


def test_processes_killed_are_counted_in_our_group_and_not_among_strangers(tree: Any) -> None:
    tree.unified_cgroup("/a.slice/edged", memory__events="max 3\noom_kill 2\n")
    tree.group("sys/fs/cgroup/a.slice", memory__events="max 3\noom_kill 9\n")

    assert read(tree).oom_kills == 2


def test_the_older_hierarchy_counts_too(tree: Any) -> None:
    tree.write("proc/self/cgroup", "4:memory:/a/edged\n")
    tree.write(
        "proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    )
    tree.group(
        "sys/fs/cgroup/memory/a/edged",
        memory__failcnt="5",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 1",
    )
    tree.group("sys/fs/cgroup/memory/a", memory__failcnt="6")

    assert (read(tree).limit_events, read(tree).oom_kills) == (11, 1)


def test_without_meminfo_that_is_the_fault(tmp_path: Path) -> None:
    reading, fault = MemorySensors(tmp_path, "self", lambda: 0.0).read()

    assert reading is None
    assert fault is not None
    assert "does not say how much memory there is" in fault


@pytest.mark.parametrize(
    "text", ["MemTotal:\nMemAvailable:\n", "MemTotal: a\nMemAvailable: b\n", "\0"]
)
def test_a_meminfo_of_rubbish_is_a_fault(tree: Any, text: str) -> None:
    tree.write("proc/meminfo", text)

    reading, fault = MemorySensors(tree.root, "self", lambda: 0.0).read()

    assert reading is None
    assert fault is not None


def test_groups_whose_names_no_file_can_have_limit_nothing(tree: Any) -> None:
    tree.unified_cgroup("/edged", memory__max="5")
    tree.write("proc/self/cgroup", "0::/a\0b\n")

    reading, fault = MemorySensors(tree.root, "self", lambda: 0.0).read()

    assert (reading is None) is (fault is not None)


def test_this_machine_says_what_it_has_left() -> None:
    reading, fault = MemorySensors(Path("/"), "self", lambda: 0.0).read()

    assert fault is None
    assert reading is not None
    assert 0 < reading.available_bytes <= reading.total_bytes


AT_THE_LIMIT = """
import sys
from pathlib import Path
from edged.hardware.sensors_memory import MemorySensors
group, limit_bytes = Path(sys.argv[1]), sys.argv[2]
(group / "memory.limit_in_bytes").write_text(limit_bytes)
(group / "cgroup.procs").write_text("0")
sensors = MemorySensors(Path("/"), "self", lambda: 0.0)
before = sensors.read()[0]
with open(sys.argv[3], "wb") as file:  # pages of a file can be had back, so nobody is killed
    for _ in range(96):
        file.write(bytes(2**20))
after = sensors.read()[0]
print(after.limit_events - before.limit_events, after.oom_kills - before.oom_kills)
"""


def test_a_real_group_that_meets_its_limit_is_seen(memory_group: Path, tmp_path: Path) -> None:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, check=True, text=True
    ).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        pytest.skip("temporary files are in memory here, so their pages cannot be dropped")
    answer = subprocess.run(
        [
            *(sys.executable, "-c", AT_THE_LIMIT),
            *(memory_group, str(64 * 2**20), tmp_path / "file"),
        ],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout.split()

    assert int(answer[0]) > 0
    assert int(answer[1]) == 0
