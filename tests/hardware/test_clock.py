"""The cap on the clock, on files as cpufreq has them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edged.hardware.clock import Clock

POLICIES = "sys/devices/system/cpu/cpufreq"


def policy(tree: Any, number: int, lowest_mhz: int, highest_mhz: int) -> Path:
    folder = f"{POLICIES}/policy{number}"
    tree.write(f"{folder}/cpuinfo_min_freq", f"{lowest_mhz}000\n")
    tree.write(f"{folder}/cpuinfo_max_freq", f"{highest_mhz}000\n")
    tree.write(f"{folder}/scaling_max_freq", f"{highest_mhz}000\n")
    return tree.root / folder / "scaling_max_freq"


def khz(path: Path) -> int:
    return int(path.read_text())


def test_without_cpufreq_there_is_no_cap(tree: Any) -> None:
    clock = Clock(tree.root)
    clock.cap(1500)
    clock.restore()

    assert (clock.available_mhz, clock.fault) == (None, None)


def test_what_can_be_asked_for_is_what_the_machine_can_do(tree: Any) -> None:
    policy(tree, 0, 1500, 2400)

    assert Clock(tree.root).available_mhz == (1500, 2400)


def test_a_cap_is_written_for_every_policy(tree: Any) -> None:
    files = [policy(tree, number, 1500, 2400) for number in (0, 4)]

    Clock(tree.root).cap(1800)

    assert [khz(file) for file in files] == [1_800_000, 1_800_000]


def test_a_policy_gets_no_more_and_no_less_than_it_can_do(tree: Any) -> None:
    little, big = policy(tree, 0, 400, 1800), policy(tree, 4, 1000, 2400)
    clock = Clock(tree.root)
    clock.cap(2000)
    high = khz(little), khz(big)
    clock.cap(600)

    assert high == (1_800_000, 2_000_000)
    assert (khz(little), khz(big)) == (600_000, 1_000_000)


def test_somebody_elses_lower_cap_is_not_raised(tree: Any) -> None:
    file = policy(tree, 0, 1500, 2400)
    file.write_text("2000000\n")
    clock = Clock(tree.root)
    clock.cap(2400)

    assert (clock.available_mhz, khz(file)) == ((1500, 2000), 2_000_000)


@pytest.mark.parametrize("undo", [Clock.restore, lambda clock: clock.cap(None)])
def test_what_was_there_at_first_is_put_back(tree: Any, undo: Any) -> None:
    file = policy(tree, 0, 1500, 2400)
    file.write_text("2200000\n")
    clock = Clock(tree.root)
    clock.cap(1800)
    clock.cap(1500)
    undo(clock)

    assert khz(file) == 2_200_000


def test_nothing_is_written_where_nothing_was_capped(tree: Any) -> None:
    file = policy(tree, 0, 1500, 2400)
    clock = Clock(tree.root)
    file.write_text("2000000\n")
    clock.restore()

    assert khz(file) == 2_000_000


def test_a_policy_that_says_rubbish_is_left_alone(tree: Any) -> None:
    policy(tree, 0, 1500, 2400).write_text("rubbish\n")

    assert Clock(tree.root).available_mhz is None


def test_a_file_that_may_not_be_written_is_left_alone(
    tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = policy(tree, 0, 1500, 2400)
    file.chmod(0o444)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everything
    clock = Clock(tree.root)
    clock.cap(1500)

    assert (clock.available_mhz, clock.fault, khz(file)) == (None, None, 2_400_000)


def refusing(file: Path) -> None:
    """A folder takes no text, whoever asks."""
    file.unlink()
    file.mkdir()


def test_a_cap_that_is_refused_is_a_fault_and_the_rest_is_capped(tree: Any) -> None:
    first, second = (policy(tree, number, 1500, 2400) for number in (0, 4))
    clock = Clock(tree.root)
    refusing(first)
    clock.cap(1800)

    assert clock.fault == "clock: scaling_max_freq of policy0 cannot be set (EISDIR)"
    assert khz(second) == 1_800_000


def test_a_refused_cap_is_tried_again_and_then_no_fault(tree: Any) -> None:
    file = policy(tree, 0, 1500, 2400)
    clock = Clock(tree.root)
    refusing(file)
    clock.cap(1800)
    file.rmdir()
    file.write_text("2400000\n")
    clock.cap(1800)

    assert (clock.fault, khz(file)) == (None, 1_800_000)


def test_what_was_half_capped_is_put_back(tree: Any) -> None:
    first, second = (policy(tree, number, 1500, 2400) for number in (0, 4))
    clock = Clock(tree.root)
    refusing(first)
    clock.cap(1800)
    clock.restore()

    assert khz(second) == 2_400_000


# After a daemon that was killed


def restored() -> str:
    """What the service's ExecStopPost= says."""
    command = [sys.executable, "-m", "edged.hardware.clock"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that systemd gives for as long as the service runs."""
    folder = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    return folder


def test_what_a_killed_daemon_capped_is_put_back(tree: Any, runtime: Path) -> None:
    files = [policy(tree, number, 1500, 2400) for number in (0, 4)]
    files[1].write_text("2200000\n")
    clock = Clock(tree.root)
    clock.cap(1800)
    clock.cap(1500)

    assert f"clock: {files[1]} is 2200000 kHz again\n" in restored()
    assert [khz(file) for file in files] == [2_400_000, 2_200_000]


def test_after_a_good_end_nothing_is_put_back(tree: Any, runtime: Path) -> None:
    file = policy(tree, 0, 1500, 2400)
    clock = Clock(tree.root)
    clock.cap(1800)
    clock.restore()
    file.write_text("2000000\n")  # somebody else's, since

    assert (restored(), khz(file)) == ("", 2_000_000)


def test_outside_of_a_service_nothing_is_put_back(
    tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    file = policy(tree, 0, 1500, 2400)
    Clock(tree.root).cap(1800)

    assert (restored(), khz(file)) == ("", 1_800_000)
