"""What is available: MemAvailable, and every limit on the way up."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edged.errors import EdgedError
from edged.hardware.memory import available

MIB = 2**20
NO_LIMIT_V1 = "9223372036854771712"
HYBRID_MOUNTS = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)


def v2(limit: int | str, current: int, stat: str = "", high: int | str = "max") -> dict[str, str]:
    return {
        "memory__max": str(limit),
        "memory__high": str(high),
        "memory__current": str(current),
        "memory__stat": stat,
    }


def v1(limit: int | str, usage: int, stat: str = "") -> dict[str, str]:
    return {
        "memory__limit_in_bytes": str(limit),
        "memory__usage_in_bytes": str(usage),
        "memory__stat": stat,
    }


def test_without_a_limit_it_is_what_the_kernel_estimates(tree: Any) -> None:
    tree.memory(8_000_000, 6_000_000)

    assert available(tree.root).bytes == 6_000_000 * 1024
    assert available(tree.root).limited_by == "MemAvailable"
    assert available(tree.root).total_bytes == 8_000_000 * 1024


def test_swap_does_not_count(tree: Any) -> None:
    tree.write("proc/meminfo", "MemTotal: 4000 kB\nMemAvailable: 1000 kB\nSwapFree: 90000 kB\n")

    assert available(tree.root).bytes == 1000 * 1024


def test_a_limit_leaves_what_is_not_used(tree: Any) -> None:
    tree.unified_cgroup("/system.slice/edged.service", **v2(1000 * MIB, 300 * MIB))

    assert available(tree.root).bytes == 700 * MIB
    assert available(tree.root).limited_by == "memory.max of /system.slice/edged.service"


def test_file_pages_and_half_the_slabs_can_be_had_back(tree: Any) -> None:
    stat = (
        f"anon {100 * MIB}\nfile {160 * MIB}\nshmem {30 * MIB}\nfile_mapped 0\n"
        f"file_dirty {8 * MIB}\nfile_writeback {2 * MIB}\ninactive_anon 0\nactive_anon 0\n"
        f"inactive_file {90 * MIB}\nactive_file {40 * MIB}\nslab_reclaimable {20 * MIB}\n"
    )
    tree.unified_cgroup("/edged", **v2(1000 * MIB, 300 * MIB, stat))

    assert available(tree.root).bytes == (700 + 90 + 40 - 8 - 2 + 10) * MIB


def test_more_dirty_pages_than_file_pages_take_nothing_away(tree: Any) -> None:
    stat = f"inactive_file {MIB}\nactive_file 0\nfile_dirty {50 * MIB}\n"
    tree.unified_cgroup("/edged", **v2(1000 * MIB, 300 * MIB, stat))

    assert available(tree.root).bytes == 700 * MIB


def test_the_limit_above_which_the_kernel_stalls_counts_too(tree: Any) -> None:
    tree.unified_cgroup("/edged", **v2("max", 100 * MIB, high=400 * MIB))

    assert available(tree.root).bytes == 300 * MIB
    assert available(tree.root).limited_by == "memory.high of /edged"


def test_the_tightest_on_the_way_up_decides(tree: Any) -> None:
    tree.unified_cgroup("/a.slice/b.slice/edged.service", **v2(900 * MIB, 100 * MIB))
    tree.group("sys/fs/cgroup/a.slice/b.slice", **v2("max", 150 * MIB))
    tree.group("sys/fs/cgroup/a.slice", **v2(1000 * MIB, 800 * MIB))
    tree.group("sys/fs/cgroup", memory__stat="anon 5")

    assert available(tree.root).bytes == 200 * MIB
    assert available(tree.root).limited_by == "memory.max of /a.slice"


def test_a_group_over_its_limit_leaves_nothing_rather_than_less(tree: Any) -> None:
    tree.unified_cgroup("/edged", **v2(100 * MIB, 130 * MIB))

    assert available(tree.root).bytes == 0


def test_the_older_hierarchy_limits_too(tree: Any) -> None:
    tree.write("proc/self/cgroup", "4:memory:/edged\n1:cpu:/\n0::/\n")
    tree.write("proc/self/mountinfo", HYBRID_MOUNTS)
    stat = (
        f"inactive_file {MIB}\nactive_file {MIB}\ntotal_inactive_file {60 * MIB}\n"
        f"total_active_file {30 * MIB}\ntotal_dirty {5 * MIB}\ntotal_writeback 0\n"
        f"hierarchical_memory_limit {500 * MIB}\n"
    )
    tree.group("sys/fs/cgroup/memory/edged", **v1(500 * MIB, 200 * MIB, stat))
    tree.group("sys/fs/cgroup/memory", **v1(NO_LIMIT_V1, 9000 * MIB))

    assert available(tree.root).bytes == (300 + 60 + 30 - 5) * MIB
    assert available(tree.root).limited_by == "memory.limit_in_bytes of /edged"


def test_a_limit_above_what_a_container_sees_still_counts(tree: Any) -> None:
    tree.write("proc/self/cgroup", "4:memory:/docker/abc\n")
    tree.write(
        "proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
    )
    stat = f"hierarchical_memory_limit {256 * MIB}"
    tree.group("sys/fs/cgroup/memory", **v1(NO_LIMIT_V1, 56 * MIB, stat))

    assert available(tree.root).bytes == 200 * MIB
    assert available(tree.root).limited_by == "a memory limit on /docker/abc from above"


def test_a_path_of_another_namespace_means_the_group_that_is_mounted(tree: Any) -> None:
    tree.write("proc/self/cgroup", "0::/../../host.slice/edged\n")
    tree.write("proc/self/mountinfo", "31 23 0:27 /pod /sys/fs/cgroup ro - cgroup2 cgroup rw\n")
    tree.group("sys/fs/cgroup", **v2(400 * MIB, 100 * MIB))

    assert available(tree.root).bytes == 300 * MIB


def test_a_path_that_leaves_the_mount_is_not_followed(tree: Any) -> None:
    tree.write("proc/self/cgroup", "0::/../other\n")
    tree.write("proc/self/mountinfo", "31 23 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n")
    tree.group("sys/fs/cgroup", **v2(400 * MIB, 100 * MIB))
    tree.group("sys/fs/other", **v2(200 * MIB, 100 * MIB))

    assert available(tree.root).bytes == 300 * MIB


def test_a_path_that_is_not_below_the_mount_leads_to_the_nearest_that_is(tree: Any) -> None:
    tree.write("proc/self/cgroup", "0::/kubepods/pod1/abc\n")
    tree.write("proc/self/mountinfo", "31 23 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n")
    tree.group("sys/fs/cgroup", **v2(400 * MIB, 100 * MIB))

    assert available(tree.root).limited_by == "memory.max of /"


def test_where_both_hierarchies_limit_the_tighter_decides(tree: Any) -> None:
    tree.write("proc/self/cgroup", "4:memory:/old\n0::/new\n")
    tree.write("proc/self/mountinfo", HYBRID_MOUNTS)
    tree.group("sys/fs/cgroup/memory/old", **v1(800 * MIB, 100 * MIB))
    tree.group("sys/fs/cgroup/unified/new", **v2(500 * MIB, 100 * MIB))

    assert available(tree.root).limited_by == "memory.max of /new"


def test_a_mount_point_with_a_space_is_found(tree: Any) -> None:
    tree.write("proc/self/cgroup", "0::/edged\n")
    tree.write("proc/self/mountinfo", r"31 23 0:27 / /my\040groups rw - cgroup2 none rw" + "\n")
    tree.group("my groups/edged", **v2(500 * MIB, 100 * MIB))

    assert available(tree.root).bytes == 400 * MIB


def test_what_does_not_answer_limits_nothing(tree: Any) -> None:
    tree.unified_cgroup("/edged", memory__max="5", memory__stat="rubbish\ninactive_file x y\n")
    (tree.root / "sys/fs/cgroup/edged/memory.current").mkdir()
    tree.write("proc/self/mountinfo", "short\n" + (tree.root / "proc/self/mountinfo").read_text())

    assert available(tree.root).limited_by == "MemAvailable"


def test_without_meminfo_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(EdgedError, match=r"meminfo does not say how much memory there is; is /pr"):
        available(tmp_path)


IN_THE_GROUP = """
import os, sys
from pathlib import Path
from edged.hardware.memory import available
group, limit_bytes, take_bytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(group / "memory.limit_in_bytes").write_text(limit_bytes)
(group / "cgroup.procs").write_text("0")
before = available()
if sys.argv[4:]:
    with open(sys.argv[4], "wb") as file:
        for _ in range(take_bytes // 2**20):
            file.write(bytes(2**20))
        os.fsync(file.fileno())
else:
    held = b"x" * take_bytes
usage = int((group / "memory.usage_in_bytes").read_text())
print(before.bytes, available().bytes, usage, before.limited_by)
"""


def measured(group: Path, limit_bytes: int, take_bytes: int, *file: str) -> tuple[int, ...]:
    """Available before and after memory was taken, and the usage then, as a process there sees."""
    answer = subprocess.run(
        [sys.executable, "-c", IN_THE_GROUP, str(group), str(limit_bytes), str(take_bytes), *file],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout.split(maxsplit=3)
    assert answer[3].startswith("memory.limit_in_bytes of ")
    assert answer[3].strip().endswith(f"/{group.name}")
    return tuple(map(int, answer[:3]))


def test_a_real_limit_is_followed_as_memory_is_taken(memory_group: Path) -> None:
    limit, taken = 200 * MIB, 64 * MIB

    before, after, _ = measured(memory_group, limit, taken)

    assert limit - 8 * MIB < before <= limit
    assert before - after == pytest.approx(taken, abs=4 * MIB)


def test_a_written_file_in_the_page_cache_takes_nothing_from_a_real_limit(
    memory_group: Path, tmp_path: Path
) -> None:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, check=True, text=True
    ).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        pytest.skip("temporary files are in memory here, so their pages cannot be dropped")

    before, after, usage = measured(memory_group, 200 * MIB, 64 * MIB, str(tmp_path / "file"))

    assert usage > 64 * MIB  # the file is in the cache, and counts as used
    assert before - after < 8 * MIB
