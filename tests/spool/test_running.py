"""One daemon a state directory."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.spool.running import Running, running_pid

HOLD = """
import sys
from pathlib import Path
from edged.spool.running import Running
running = Running(Path(sys.argv[1]))
running.begin()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the state directory, and dies without a clean stop."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def begins(state_dir: Path) -> bool:
    """One start and its clean stop; whether the one before was none."""
    running = Running(state_dir)
    was_unclean = running.begin()
    running.end()
    return was_unclean


def test_the_first_start_is_no_unclean_one(tmp_path: Path) -> None:
    running = Running(tmp_path / "state")

    assert running.begin() is False
    assert running_pid(tmp_path / "state") == os.getpid()
    running.end()
    assert running_pid(tmp_path / "state") is None


def test_a_disk_without_room_for_its_number_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    running = Running(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        assert running.begin() is False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    running.end()

    assert begins(tmp_path) is False


def test_after_a_clean_stop_the_next_start_is_clean(tmp_path: Path) -> None:
    first = Running(tmp_path)
    first.begin()
    first.end()

    assert begins(tmp_path) is False


def test_a_second_daemon_is_refused_and_told_of_the_first(
    tmp_path: Path, other: "subprocess.Popen[bytes]"
) -> None:
    with pytest.raises(ConfigError, match=f"another daemon \\(process {other.pid}\\)"):
        Running(tmp_path).begin()
    assert running_pid(tmp_path) == other.pid


def test_after_a_kill_the_next_start_knows(
    tmp_path: Path, other: "subprocess.Popen[bytes]"
) -> None:
    other.kill()
    other.communicate()

    assert running_pid(tmp_path) is None
    assert begins(tmp_path) is True


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")

    with pytest.raises(ConfigError, match=r"state_dir: .* cannot be written"):
        Running(tmp_path / "state").begin()
