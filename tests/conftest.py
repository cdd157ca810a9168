"""What tests of several rooms stand on."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.hardware.cgroups import groups

LEAVE_S = 30.0


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours, no credential, no settings file, no folder of systemd's."""
    for name in [name for name in os.environ if name.upper().startswith("EDGED_")]:
        monkeypatch.delenv(name)
    for name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("edged.settings.DEFAULT_CONFIG_PATH", tmp_path / "absent.toml")


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A memory group of cgroup v1 under our own, which only root can make."""
    ours = [group for group in groups(Path("/"), "self", "memory") if group.version == 1]
    if not ours or os.geteuid() != 0:
        pytest.skip("needs root and the memory controller of cgroup v1")
    folder = ours[0].folder / f"edged-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group: {error}")
    yield folder
    until_s = time.monotonic() + LEAVE_S
    while time.monotonic() < until_s:  # until the last process has left
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.1)
