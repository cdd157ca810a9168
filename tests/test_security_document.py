"""The threat model names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs/security.md").read_text()


def named() -> list[tuple[str, str]]:
    """Each test, with the file named before it on the same line."""
    found = []
    for line in DOCUMENT.splitlines():
        file = ""
        for word in re.findall(r"`(tests/[\w/]+\.py|test_\w+)`", line):
            if word.startswith("tests/"):
                file = word
            else:
                found.append((file, word))
    return found


@pytest.mark.parametrize(("file", "test"), named())
def test_every_test_that_the_threat_model_names_exists(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_every_threat_is_shown_by_a_test_or_said_to_be_untested() -> None:
    rows = DOCUMENT.partition("## Threats")[2].partition("## Not defended")[0].splitlines()
    threats = [row for row in rows if row.startswith("| ") and "---" not in row][1:]

    assert len(threats) > 20
    assert [row for row in threats if "`test_" not in row and "not tested" not in row] == []
