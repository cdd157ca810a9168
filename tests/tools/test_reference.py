"""What is generated from the code is what the code says, and what only people can say is there."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from edged.errors import PromptFailure
from edged.messages import Level
from edged.settings import LogSettings, Settings, setting_paths
from edged.telemetry.presence import Activity, Condition, card, state
from tools.reference.__main__ import ROOT, differing, generated
from tools.reference.settings_page import MORE, fields, is_unset
from tools.reference.values import values

FILES = sorted(generated())
FIELDS = dict(fields())
CODES = [kind.code for kind in PromptFailure.__subclasses__()]


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_a_committed_file_is_what_the_code_generates(file: Path) -> None:
    assert differing({file: generated()[file]}) == [], "run python -m tools.reference"


def test_a_file_that_differs_or_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "same").write_text("as it should be")
    (tmp_path / "old").write_text("as it was")
    wanted = {tmp_path / name: "as it should be" for name in ("same", "old", "missing")}

    assert differing(wanted) == [tmp_path / "old", tmp_path / "missing"]


# Settings


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_says_what_it_means(name: str) -> None:
    assert FIELDS[name].description


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if is_unset(field)])
def test_a_setting_that_is_unset_says_what_holds_then(name: str) -> None:
    assert "unset" in (FIELDS[name].description or "")


def test_every_setting_is_in_the_reference() -> None:
    assert list(FIELDS) == list(setting_paths(Settings))


def test_links_of_the_reference_belong_to_settings() -> None:
    assert set(MORE) - set(setting_paths(Settings)) == set()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 65535}, "integer from 1 to 65535"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number above 0, at most 1"),
        ({"type": "integer", "minimum": 1}, "integer at least 1"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "true or false"),
        ({"enum": ["f16", "q8_0"]}, "`f16`, `q8_0`"),
        ({"type": "string", "format": "password"}, "secret"),
        ({"type": "string", "minLength": 1, "maxLength": 128}, "text (1 to 128 characters)"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 8}, "list of text (at most 8)"),
    ],
)
def test_what_a_value_may_be_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert values(schema, {}) == words


def test_a_field_of_another_object_is_followed() -> None:
    schema = TypeAdapter(list[LogSettings]).json_schema()

    assert values(schema, schema["$defs"]) == "list of object of `level`"


# What people say


def sections(document: str) -> dict[str, str]:
    """Each heading of the third level that is one word, with what stands below it."""
    text = (ROOT / document).read_text()
    return dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("name", [*get_args(Level), *CODES])
def test_the_runbook_says_of_every_level_and_code_what_to_do(name: str) -> None:
    assert "**Do" in sections("docs/runbook.md")[name]


def test_the_runbook_knows_no_level_or_code_that_there_is_not() -> None:
    assert set(sections("docs/runbook.md")) == {*get_args(Level), *CODES}


@pytest.mark.parametrize(
    "key",
    [
        *card("", None, None, None, None),
        *state(Activity(Condition(), "", None, 0.0, None, 0, 0, 0.0, None, None, None, ())),
    ],
)
def test_every_key_of_card_and_state_is_explained(key: str) -> None:
    text = (ROOT / "docs/wire-protocol.md").read_text()
    section = text.partition("## Card and state")[2].partition("\n## ")[0]

    assert f"`{key}`" in section
