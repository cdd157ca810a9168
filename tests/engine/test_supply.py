"""What the daemon has loaded next, and the way back."""

from pathlib import Path

import pytest

from edged.engine import supply as module
from edged.engine.supply import Supply
from edged.errors import ModelFileError, OutOfMemory
from edged.hardware.memory import Available
from edged.models.bundled import BUNDLED_MODEL
from edged.models.selection import Selection, read_selection, write_selection
from edged.settings import Settings

MIB = 2**20


@pytest.fixture
def supply(tmp_path: Path) -> Supply:
    supply = Supply(Settings(state_dir=tmp_path / "state", model={"store": tmp_path / "store"}))
    supply.start(unclean=False)
    return supply


def available(monkeypatch: pytest.MonkeyPatch, mib: int) -> None:
    now = Available(mib * MIB, "MemAvailable", 8192 * MIB)
    monkeypatch.setattr(module, "available", lambda: now)


async def test_the_bundled_model_is_what_there_is_to_load(supply: Supply) -> None:
    load = await supply.next_load()

    assert load.model_path == str(BUNDLED_MODEL)
    assert supply.planned is not None
    assert supply.planned.load == load


async def test_missing_memory_is_looked_for_without_planning_anew(
    supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch, 10)
    with pytest.raises(OutOfMemory) as first:
        await supply.next_load()
    planned = supply.planned
    available(monkeypatch, 11)
    with pytest.raises(OutOfMemory):
        await supply.next_load()

    assert first.value.details["available"] == 10 * MIB
    assert supply.planned is planned
    available(monkeypatch, 1024)
    assert await supply.next_load()


async def test_missing_memory_is_planned_for_anew_now_and_then(
    supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch, 10)
    with pytest.raises(OutOfMemory):
        await supply.next_load()
    planned = supply.planned
    monkeypatch.setattr(module, "PLAN_AGAIN_S", 0.0)
    with pytest.raises(OutOfMemory):
        await supply.next_load()

    assert supply.planned is not planned


async def test_a_planner_that_dies_is_an_error_that_says_so(
    supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")

    with pytest.raises(Exception, match="the planner ended with exit code 1"):
        await supply.next_load()


async def test_a_chosen_model_that_is_not_there_cannot_be_loaded(
    supply: Supply, tmp_path: Path
) -> None:
    write_selection(tmp_path / "state", Selection("phi"))
    assert supply.reread()

    with pytest.raises(ModelFileError, match="no usable model; phi was chosen"):
        await supply.next_load()


async def test_the_way_back_leads_to_what_served_last(supply: Supply, tmp_path: Path) -> None:
    for name in ("new", "newer"):
        write_selection(tmp_path / "state", Selection(name))
        assert supply.reread()
    assert supply.switching_to == "newer"

    assert supply.failed("it is noise")
    assert supply.switching_to is None
    assert read_selection(tmp_path / "state") == Selection(None, "newer", "it is noise")
    assert "newer does not serve: it is noise" in str(supply.fault)
    assert not supply.failed("whatever")  # there is no further way back


async def test_what_serves_now_is_not_gone_over_to(supply: Supply, tmp_path: Path) -> None:
    write_selection(tmp_path / "state", Selection(None, "bad", "why"))

    assert not supply.reread()
