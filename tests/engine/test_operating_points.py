"""What was measured of this machine, and what plans make of it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edged.engine.operating_points import (
    MeasuredPoint,
    OperatingPoints,
    read_operating_points,
    write_operating_points,
)
from edged.engine.planning import file_candidate, nominal
from edged.errors import ConfigError
from edged.hardware.profile import read_profile
from edged.models.bundled import BUNDLED_MODEL
from edged.models.choice import judge
from edged.models.plan import Machine, MeasuredThreads, Plan, Wishes

MACHINE: dict[str, str | int] = {"cpu_model": 'A "CPU"', "cores": 4, "memory_gib": 8}
POINTS = OperatingPoints(
    measured_at=datetime(2026, 11, 21, 10, 0, tzinfo=UTC),
    model="phi-4-mini-instruct",
    weights_bytes=2_000_000_000,
    machine=MACHINE,
    points=(
        MeasuredPoint(threads=1, decode_tokens_per_s=3.0, prefill_tokens_per_s=10),
        MeasuredPoint(threads=2, decode_tokens_per_s=5.0, prefill_tokens_per_s=20),
        MeasuredPoint(threads=3, decode_tokens_per_s=5.1, prefill_tokens_per_s=29),
        MeasuredPoint(threads=4, decode_tokens_per_s=4.0, prefill_tokens_per_s=37, watts=9.5),
    ),
)


def test_what_was_written_is_read_again(tmp_path: Path):
    file = write_operating_points(tmp_path / "state", POINTS)

    assert file == tmp_path / "state/operating_points.toml"
    assert read_operating_points(tmp_path / "state", MACHINE) == POINTS


def test_the_best_are_the_fewest_that_are_about_as_fast():
    assert POINTS.best == MeasuredThreads(2_000_000_000, decode=2, prefill=4)


def test_what_another_machine_has_measured_is_none(tmp_path: Path):
    write_operating_points(tmp_path, POINTS)

    assert read_operating_points(tmp_path, MACHINE | {"cores": 8}) is None


@pytest.mark.parametrize("text", [None, "points = [", "points = []", "\ud800"])
def test_a_file_that_cannot_be_read_is_none(text: str | None, tmp_path: Path):
    if text is not None:
        data = text.encode(errors="surrogatepass")
        (tmp_path / "operating_points.toml").write_bytes(data)

    assert read_operating_points(tmp_path, MACHINE) is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "state").write_text("a file")

    with pytest.raises(ConfigError, match=r"operating_points\.toml cannot be written"):
        write_operating_points(tmp_path / "state", POINTS)


def plan(machine: Machine, wishes: Wishes) -> Plan:
    found = judge(file_candidate(BUNDLED_MODEL), machine, wishes).plan
    assert found is not None
    return found


@pytest.fixture
def machine() -> Machine:
    size = file_candidate(BUNDLED_MODEL).shape
    assert size is not None
    measured = MeasuredThreads(size.weights_bytes // 2, decode=2, prefill=3)
    return replace(nominal(read_profile("pi5-8gb")), measured=measured)


def test_a_plan_takes_the_threads_that_were_measured(machine: Machine):
    found = plan(machine, Wishes())

    assert (found.threads_decode, found.threads_prefill) == (2, 3)


def test_what_the_operator_has_set_goes_before(machine: Machine):
    found = plan(machine, Wishes(threads=4))

    assert (found.threads_decode, found.threads_prefill) == (4, 4)


def test_a_model_of_another_size_is_planned_as_before(machine: Machine):
    assert machine.measured is not None
    other = replace(machine.measured, weights_bytes=machine.measured.weights_bytes // 2)
    found = plan(replace(machine, measured=other), Wishes())

    assert found.threads_decode == plan(replace(machine, measured=None), Wishes()).threads_decode
    assert found.threads_decode != 2
