"""What a host is refused for, asked of this machine as a host, without SSH or root."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import COLLECTION, PATH, what_ansible_lacks

pytestmark = pytest.mark.skipif(
    what_ansible_lacks("ansible-playbook") is not None,
    reason=what_ansible_lacks("ansible-playbook") or "",
)
PLAY = [
    {
        "hosts": "board",
        "gather_facts": False,
        "tasks": [
            {"set_fact": {"service_mgr": "systemd", "cacheable": True, "__edged_upgrade": {}}},
            {"include_role": {"name": "edged.edge.edged", "tasks_from": "preflight"}},
        ],
    }
]


def preflight(folder: Path, zone: str = "UTC", **variables: object) -> tuple[int, str]:
    """The exit code and the output of the role's preflight, with the controller in a zone."""
    collections = folder / "ansible_collections/edged"
    collections.mkdir(parents=True)
    (collections / "edge").symlink_to(COLLECTION)
    board = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "edged_min_memory_mib": 1,
        "edged_min_disk_mib": 0,
        **variables,
    }
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": {"board": board}}}))
    (folder / "play.json").write_text(json.dumps(PLAY))
    done = subprocess.run(
        ["ansible-playbook", "-i", "hosts.json", "play.json"],
        cwd=folder,
        env={
            "PATH": f"{PATH}:{os.defpath}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": zone,
            "ANSIBLE_COLLECTIONS_PATH": str(folder),
            "ANSIBLE_NOCOLOR": "true",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_controller_in_any_time_zone_takes_a_clock_that_is_right(tmp_path: Path) -> None:
    code, output = preflight(tmp_path, zone="Asia/Kolkata", edged_python=sys.executable)

    assert code == 0, output


def test_a_python_that_comes_with_the_packages_is_not_missed(tmp_path: Path) -> None:
    """As on a new Jetson: its own is too old, and the other is still to be installed."""
    code, output = preflight(
        tmp_path, edged_python="python3.99", edged_packages=["python3.99-venv", "libgomp1"]
    )

    assert code == 0, output


def test_a_python_that_nothing_brings_is_missed(tmp_path: Path) -> None:
    code, output = preflight(tmp_path, edged_python="python3.99")

    assert code != 0
    assert "python3.99 is not there; edged needs Python 3.11 or newer" in output
