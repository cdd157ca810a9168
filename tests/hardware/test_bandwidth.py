"""The bandwidth is measured in a process of its own, once for a machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged.hardware import bandwidth
from edged.hardware.bandwidth import measured_bandwidth
from edged.hardware.memory import Available

MACHINE: dict[str, str | int] = {"cpu_model": "AMD EPYC", "cores": 2, "memory_gib": 24}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every measurement that was made, each of another speed."""
    made: list[float] = []

    def measure() -> float:
        made.append(1e9 * (len(made) + 1))
        return made[-1]

    monkeypatch.setattr(bandwidth, "_measure_apart", measure)
    return made


def test_this_machine_is_measured_for_real(tmp_path: Path) -> None:
    speed = measured_bandwidth(tmp_path, MACHINE)

    assert 0.5e9 < speed < 2e12
    assert json.loads((tmp_path / "bandwidth.json").read_text())["read_bytes_per_s"] == speed


def test_a_machine_is_measured_once(tmp_path: Path, measured: list[float]) -> None:
    assert [measured_bandwidth(tmp_path, MACHINE) for _ in range(3)] == [1e9, 1e9, 1e9]
    assert measured == [1e9]


@pytest.mark.parametrize("changed", [{"cores": 4}, {"memory_gib": 8}, {"cpu_model": "other"}])
def test_another_machine_is_measured_again(
    tmp_path: Path, measured: list[float], changed: dict[str, str | int]
) -> None:
    measured_bandwidth(tmp_path, MACHINE)

    assert measured_bandwidth(tmp_path, MACHINE | changed) == 2e9


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"{",
        json.dumps({"machine": MACHINE}).encode(),
        json.dumps({"machine": MACHINE, "read_bytes_per_s": -1}).encode(),
        json.dumps({"machine": MACHINE, "read_bytes_per_s": True}).encode(),
        json.dumps({"machine": MACHINE, "read_bytes_per_s": "fast"}).encode(),
        json.dumps({"machine": MACHINE, "read_bytes_per_s": float("nan")}).encode(),
    ],
)
def test_a_spoilt_record_is_measured_again_and_replaced(
    tmp_path: Path, measured: list[float], kept: bytes
) -> None:
    (tmp_path / "bandwidth.json").write_bytes(kept)

    assert measured_bandwidth(tmp_path, MACHINE) == 1e9
    assert measured_bandwidth(tmp_path, MACHINE) == 1e9
    assert len(measured) == 1


def test_the_record_arrives_whole_and_leaves_nothing_beside_it(
    tmp_path: Path, measured: list[float]
) -> None:
    measured_bandwidth(tmp_path / "new", MACHINE)

    assert os.listdir(tmp_path / "new") == ["bandwidth.json"]  # noqa: PTH208 (names only)


def test_a_state_folder_that_cannot_be_made_costs_only_the_record(
    tmp_path: Path, measured: list[float]
) -> None:
    (tmp_path / "file").write_text("")

    assert measured_bandwidth(tmp_path / "file" / "state", MACHINE) == 1e9


def test_a_measurement_that_dies_is_an_error_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bandwidth.sys, "executable", "/bin/false")

    with pytest.raises(EdgedError, match="bandwidth cannot be measured"):
        measured_bandwidth(tmp_path, MACHINE)
    assert not (tmp_path / "bandwidth.json").exists()


def test_where_memory_is_short_it_says_so_instead_of_measuring_a_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = Available(bytes=100 * 2**20, limited_by="MemAvailable", total_bytes=2**30)
    monkeypatch.setattr(bandwidth, "available", lambda: short)

    with pytest.raises(SystemExit, match="100 MiB are available, and it takes an eighth of 256"):
        bandwidth._main()


def test_detection_needs_no_numpy_in_its_own_process() -> None:
    code = "import edged.hardware.detect, sys; print('numpy' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert done.stdout.strip() == "False"
