"""Checks of ``edged doctor``: settings, GPUs, profiles and permissions."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edged.cli import checks, checks_engine
from edged.hardware.detect import Detection
from edged.hardware.gpu import Gpu
from edged.hardware.profile import profile_folders, read_profile
from tests.cli.findings import finds

pytestmark = pytest.mark.usefixtures("operator_folder")


# Settings


def test_an_engine_that_nobody_knows_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_ENGINE__NAME", "lama_cpp")

    (finding,) = finds("settings")

    assert finding.outcome == "failure"
    assert "engine.name" in finding.found


# GPUs


def with_gpu(profile: str) -> checks.Node:
    """This machine as if a GeForce were in it, under a profile."""
    node = checks.Node(None)
    card = Gpu("NVIDIA GeForce RTX 3060", 12288 * 2**20, 11500 * 2**20, "8.6", "550.54.14")
    found = replace(node.detection.machine, gpus=(card,), tegra_release="")
    chosen = read_profile(profile, profile_folders()[:1])
    node.detection = Detection(chosen, (), found)  # type: ignore[misc]  # read once, then kept
    return node


@pytest.mark.parametrize(
    ("sees_gpu", "backend", "outcome", "words"),
    [
        (True, True, "ok", "llama.cpp uses it"),
        (False, True, "warning", "was built for CUDA but finds no GPU"),
        (False, False, "warning", "was built without CUDA"),
    ],
)
def test_a_gpu_wants_an_engine_that_can_use_it(
    monkeypatch: pytest.MonkeyPatch, sees_gpu: bool, backend: bool, outcome: str, words: str
) -> None:
    probe = checks_engine.Probe("llama_cpp", True, "0.3.36", sees_gpu=sees_gpu)
    monkeypatch.setattr(checks_engine, "probe", lambda name: probe)
    monkeypatch.setattr(checks, "offload_is_built", lambda: backend)

    card, built = checks.guarded(checks.gpu, with_gpu("rtx3060-12gb"))

    assert card.found == "NVIDIA GeForce RTX 3060, driver 550.54.14"
    assert (built.outcome, words in built.found) == (outcome, True)
    assert ("-DGGML_CUDA=ON" in (built.remedy or "")) == (words == "was built without CUDA")


def test_a_gpu_that_no_profile_knows_is_a_warning() -> None:
    _, unknown = checks.guarded(checks.gpu, with_gpu("generic-x86_64"))

    assert (unknown.outcome, "knows of no GPU" in unknown.found) == ("warning", True)
    assert "docs/hw-profiles.md" in (unknown.remedy or "")


# Profiles


def test_the_profile_that_was_found_is_named_with_its_evidence() -> None:
    (finding,) = finds("profile")

    assert finding.outcome == "ok"
    assert ", known by " in finding.found


def test_the_profile_of_another_machine_is_a_warning_with_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGED_PROFILE", "pi5-16gb")

    (finding,) = finds("profile")

    assert finding.outcome == "warning"
    assert "profile is set to pi5-16gb (16,215 MiB), but this machine is " in finding.found
    assert re.match(r'write profile = "[\w-]+" in the settings', finding.remedy or "")


def test_a_profile_without_rules_is_the_operators_word(
    operator_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (operator_folder / "mine.toml").write_text('extends = "generic-x86_64"\nmatch = []\n')
    monkeypatch.setenv("EDGED_PROFILE", "mine")

    (finding,) = finds("profile")

    assert (finding.outcome, finding.found.startswith("mine, as set")) == ("ok", True)


def test_a_mistake_in_a_profile_is_told_with_its_line(operator_folder: Path) -> None:
    (operator_folder / "mine.toml").write_text('extends = "pi5-8gb"\ncolour = "white"\n')

    mistake, found = finds("profile")

    assert (mistake.outcome, "line 2: colour: is not known" in mistake.found) == ("warning", True)
    assert found.outcome == "ok"


def test_a_profile_that_is_set_and_not_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_PROFILE", "pi6")

    (finding,) = finds("profile")

    assert (finding.outcome, "there is no hardware profile pi6" in finding.found) == (
        "failure",
        True,
    )


# Permissions


def test_folders_that_are_to_be_made_are_well() -> None:
    assert [finding.outcome for finding in finds("permissions")][:2] == ["ok", "ok"]


def test_a_state_folder_that_is_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    assert finds("permissions")[0].outcome == "failure"


def test_what_this_user_may_not_do_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    # root, as which these tests may run, may do everything.
    monkeypatch.setattr("os.access", lambda path, mode: False)

    state, store, *_ = finds("permissions")

    assert (state.outcome, store.outcome) == ("failure", "failure")
    assert f'chown "$(id -un)" {tmp_path / "state"}' in (state.remedy or "")
    assert store.remedy == f"sudo chmod a+rx {tmp_path / 'store'}"


def test_a_state_folder_of_another_user_is_left_to_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "state", 1234, -1)
    owner = (tmp_path / "state").stat().st_uid
    monkeypatch.setattr("os.access", lambda path, mode: False)

    remedy = finds("permissions")[0].remedy or ""

    assert f"sudo -u '#{owner}' edged doctor" in remedy
