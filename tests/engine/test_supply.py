"""What the daemon has loaded next, and the way back."""

import os
from pathlib import Path

import pytest

from edged.engine import supply as module
from edged.engine.frames import Load
from edged.engine.supply import Supply
from edged.errors import OutOfMemory
from edged.hardware.memory import Available
from edged.models.bundled import BUNDLED_MODEL
from edged.models.pull import pull
from edged.models.selection import Selection, read_selection, write_selection
from edged.models.store import Store
from edged.models.targets import parse_target
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


async def test_the_operators_own_prompt_goes_along_with_the_load(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path / "state",
        model={"store": tmp_path / "store"},
        chat={"system_prompt": "Be brief."},
    )
    supply = Supply(settings)
    supply.start(unclean=False)

    assert (await supply.next_load()).system_prompt == "Be brief."


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


def put(tmp_path: Path, *names: str) -> None:
    """Models of the store, all the same but for their names."""
    for name in names:
        store = Store(tmp_path / "store")
        pull(parse_target(f"file:{BUNDLED_MODEL}", name=name), store, lambda *_: None)


async def serve(supply: Supply) -> Load:
    """One load that goes well."""
    load = await supply.next_load()
    supply.served()
    return load


async def test_a_chosen_model_that_is_not_there_is_answered_and_nothing_is_stopped(
    supply: Supply, tmp_path: Path
) -> None:
    before = await serve(supply)
    write_selection(tmp_path / "state", Selection("phi"))

    assert not await supply.goes_over(2**20)
    said = read_selection(tmp_path / "state")
    assert (said.model, said.failed) == (None, "phi")
    assert "no usable model; phi was chosen" in str(said.reason)
    assert await supply.next_load() == before


async def test_what_is_served_is_written_for_those_who_wait_for_it(
    supply: Supply, tmp_path: Path
) -> None:
    put(tmp_path, "one", "two")
    await serve(supply)
    write_selection(tmp_path / "state", Selection("two"))

    assert await supply.goes_over(2**20)
    assert supply.switching_to == "two"
    assert (await serve(supply)).model_name == "two"
    assert read_selection(tmp_path / "state") == Selection("two", serves="two")


async def test_what_serves_already_is_not_loaded_again(supply: Supply, tmp_path: Path) -> None:
    put(tmp_path, "one")
    await serve(supply)
    write_selection(tmp_path / "state", Selection("one"))

    assert not await supply.goes_over(2**20)
    assert read_selection(tmp_path / "state") == Selection("one", serves="one")


async def test_a_model_that_fails_leads_back_to_the_bundled_one_that_served_before(
    supply: Supply, tmp_path: Path
) -> None:
    before = await serve(supply)
    put(tmp_path, "bad")
    write_selection(tmp_path / "state", Selection("bad"))
    assert await supply.goes_over(2**20)
    bad = await supply.next_load()

    assert supply.failed("it is noise", bad)
    assert (await serve(supply)) == before
    assert "bad does not serve: it is noise" in str(supply.fault)


async def test_the_way_back_leads_to_what_served_last(supply: Supply, tmp_path: Path) -> None:
    put(tmp_path, "one", "new", "newer")
    write_selection(tmp_path / "state", Selection("one"))
    supply.start(unclean=False)
    await serve(supply)
    for name in ("new", "newer"):
        write_selection(tmp_path / "state", Selection(name))
        assert await supply.goes_over(2**20)
    load = await supply.next_load()

    assert supply.failed("it is noise", load)
    assert read_selection(tmp_path / "state") == Selection("one", "newer", "it is noise")
    assert (await serve(supply)).model_name == "one"


async def test_a_model_of_the_store_that_fails_is_passed_over_for_another(
    supply: Supply, tmp_path: Path
) -> None:
    put(tmp_path, "one", "two")
    first = await supply.next_load()

    assert supply.failed("it is noise", first)
    second = await serve(supply)
    assert {first.model_name, second.model_name} == {"one", "two"}
    assert f"{first.model_name} does not serve" in str(supply.fault)


async def test_one_that_was_left_out_is_tried_again_when_its_file_has_changed(
    supply: Supply, tmp_path: Path
) -> None:
    put(tmp_path, "one", "two")
    first = await supply.next_load()
    supply.failed("it is noise", first)
    os.utime(str(first.model_path), (1, 1))

    assert (await supply.next_load()).model_name == first.model_name


async def test_workers_that_die_in_loading_are_planned_for_with_less_and_then_left_out(
    supply: Supply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "one", "two")
    available(monkeypatch, 1024)
    monkeypatch.setattr(module, "LESS_AFTER_DEATH", 0.01)
    first = await supply.next_load()

    assert not supply.failed("SIGKILL", first, died=True)
    with pytest.raises(OutOfMemory) as shortage:
        await supply.next_load()
    assert shortage.value.details["available"] == int(1024 * MIB * 0.01)
    monkeypatch.setattr(module, "LESS_AFTER_DEATH", 1.0)
    assert (await supply.next_load()).model_name == first.model_name
    assert not supply.failed("SIGKILL", first, died=True)
    assert supply.failed("SIGKILL", first, died=True)
    assert (await supply.next_load()).model_name != first.model_name


async def test_what_cannot_be_written_or_read_is_a_fault(supply: Supply, tmp_path: Path) -> None:
    await serve(supply)
    (tmp_path / "state" / "model.json").write_text("{")

    assert not await supply.goes_over(2**20)
    assert "model.json cannot be read" in str(supply.fault)
    write_selection(tmp_path / "state", Selection())
    assert not await supply.goes_over(2**20)
    assert supply.fault is None
