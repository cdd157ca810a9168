"""What ``edged doctor`` makes of the disks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edged.hardware import health_disk

DISK = health_disk.Disk(Path("/var/lib/edged"), 30 * 2**30, False, "ext4", "/dev/mmcblk0p2")


@pytest.mark.parametrize(
    ("change", "outcome", "word"),
    [
        ({}, "ok", "30.0 GiB free, on a memory card or eMMC"),
        ({"free_bytes": 200 * 2**20}, "warning", "200 MiB free"),
        ({"free_bytes": 2**20}, "failure", "1 MiB free"),
        ({"kind": "tmpfs"}, "warning", "lost at each boot"),
        ({"is_read_only": True}, "failure", "mounted read-only"),
    ],
)
def test_the_disk_of_the_state_is_judged(change: dict[str, Any], outcome: str, word: str) -> None:
    finding = health_disk.state_disk(replace(DISK, **change))

    assert (finding.outcome, word in finding.found) == (outcome, True)
    assert (finding.remedy is None) == (outcome == "ok")


@pytest.mark.parametrize(
    ("change", "has_models", "outcome"),
    [
        ({}, False, "ok"),
        ({"free_bytes": 2**30}, False, "warning"),
        ({"free_bytes": 2**30}, True, "ok"),
        ({"is_read_only": True}, False, "warning"),
        ({"is_read_only": True}, True, "ok"),
        ({"kind": "tmpfs"}, True, "warning"),
    ],
)
def test_the_disk_of_the_store_matters_where_a_model_is_to_come(
    change: dict[str, Any], has_models: bool, outcome: str
) -> None:
    assert health_disk.store_disk(replace(DISK, **change), has_models=has_models).outcome == outcome


def test_a_folder_that_is_to_be_made_is_on_the_deepest_mount_above_it(
    tree: Any, tmp_path: Path
) -> None:
    here = tmp_path.resolve()
    tree.write(
        "proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"2 1 0:30 / {here} rw shared:1 - tmpfs tmpfs rw\n"
        f"3 1 0:31 / {here}/other rw - btrfs /dev/sdb rw\n",
    )

    disk = health_disk.disk_of(tmp_path / "not" / "yet", tree.root)

    assert (disk.kind, disk.source) == ("tmpfs", "tmpfs")
    assert disk.free_bytes > 0
