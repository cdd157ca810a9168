"""What was chosen, between a command and the daemon."""

from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.models.selection import Selection, read_selection, write_selection


def test_what_was_chosen_is_read_back(tmp_path: Path) -> None:
    chosen = Selection("new", failed="bad", reason="its first answer is no number")
    write_selection(tmp_path / "state", chosen)

    assert read_selection(tmp_path / "state") == chosen


def test_nobody_has_chosen_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_selection(tmp_path / "none") == Selection()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\0", '"model"'])
def test_a_damaged_choice_names_its_file_and_the_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)

    with pytest.raises(ConfigError, match=r"model\.json .* edged models use NAME"):
        read_selection(tmp_path)


def test_what_a_newer_edged_adds_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"model": "new", "since": 1}')

    assert read_selection(tmp_path) == Selection("new")


def test_a_choice_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")

    with pytest.raises(ConfigError, match=r"model\.json cannot be written"):
        write_selection(tmp_path / "state", Selection("new"))
