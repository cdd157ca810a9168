"""``edged plan --systemd-dropin``."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from edged.cli.main import cli
from edged.cli.plan_dropin import BESIDE_WORKER_BYTES


@pytest.fixture(autouse=True)
def here(operator_folder: Path) -> None:
    """Settings and state of our own."""


def settings_of(*arguments: str) -> dict[str, str]:
    """What systemd reads in it."""
    run = CliRunner().invoke(cli, ["plan", "--systemd-dropin", *arguments], catch_exceptions=False)
    assert run.exit_code == 0
    section, *settings = [line for line in run.stdout.splitlines() if line[0] != "#"]
    assert section == "[Service]"
    return dict(line.split("=") for line in settings)


def test_the_most_is_what_plans_for_the_board_may_use_and_the_daemons_own() -> None:
    assert settings_of("--profile", "pi5-8gb") == {
        "MemoryMax": str((7942 - 1024) * 2**20 + BESIDE_WORKER_BYTES)
    }


def test_it_is_the_same_for_every_model_so_that_models_can_be_switched() -> None:
    small = settings_of("--profile", "pi5-8gb", "--model", "phi-3-mini-4k-instruct:q4_k_m")

    assert small == settings_of("--profile", "pi5-8gb", "--model", "phi-4-mini-instruct:q4_k_m")


def test_a_model_that_does_not_fit_is_no_reason_to_go_without() -> None:
    assert settings_of("--profile", "pi5-8gb", "--model", "phi-3.5-moe-instruct")


def test_a_small_board_keeps_half_for_the_model(operator_folder: Path) -> None:
    board = 'extends = "pi4-8gb"\nmemory = { total_mib = 1040, kept_for_system_mib = 1024 }\n'
    (operator_folder / "small.toml").write_text(board)

    assert settings_of("--profile", "small") == {
        "MemoryMax": str(520 * 2**20 + BESIDE_WORKER_BYTES)
    }
