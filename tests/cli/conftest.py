from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Broker

from edged.hardware import profile


@pytest.fixture
def operator_folder(nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's folder of profiles, empty; beside it a store and a state folder to be made."""
    monkeypatch.setenv("EDGED_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("EDGED_MODEL__STORE", str(tmp_path / "store"))
    folder = tmp_path / "hw_profiles"
    folder.mkdir()
    monkeypatch.setattr(profile, "OPERATOR_FOLDER", folder)
    return folder


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()
