"""The collection as ansible-lint sees it, by the rules of its production profile."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fleet import COLLECTION, PATH, what_ansible_lacks

pytestmark = pytest.mark.skipif(
    what_ansible_lacks("ansible-lint") is not None,
    reason=what_ansible_lacks("ansible-lint") or "",
)


def test_the_collection_is_clean(tmp_path: Path) -> None:
    """In a copy: the linter keeps its cache beside what it reads."""
    copy = tmp_path / "ansible_collections/edged/edge"
    shutil.copytree(COLLECTION, copy)
    done = subprocess.run(
        ["ansible-lint", "--offline", "--profile=production", "--nocolor", "--strict"],
        cwd=copy,
        env={
            "PATH": PATH,
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
