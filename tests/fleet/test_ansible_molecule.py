"""Molecule's scenario of the collection, on a fresh host."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fleet import COLLECTION, fleet, what_ansible_lacks
from tree import what_is_missing

MISSING = what_is_missing() or what_ansible_lacks("molecule", "ssh-keygen", "ip")
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
]


def test_its_scenario_is_green(tmp_path: Path) -> None:
    """Syntax, converge, idempotence, verify. In a copy: it writes beside what it reads."""
    with fleet(tmp_path, ["shelf"]) as made:
        copy = tmp_path / "copy/ansible_collections/edged/edge"
        shutil.copytree(COLLECTION, copy)
        done = subprocess.run(
            made.command("molecule", "test"),
            cwd=copy,
            env=made.environment
            | {
                "HOME": str(tmp_path),
                "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "copy"),
                "MOLECULE_HOST": made.addresses["shelf"],
                "MOLECULE_KEY": str(tmp_path / "id"),
                "MOLECULE_WHEELS": str(tmp_path / "wheels"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
