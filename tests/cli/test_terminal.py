"""What nodes and models say does not steer the terminal of who reads it."""

import io
import os
import pty
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edged.cli.bus import Node
from edged.cli.status import table
from edged.cli.terminal import for_stdout, harmless

TITLE = "\x1b]0;owned\x07"
CLEAR = "\x9b2J"


@given(st.text())
def test_no_control_character_is_left_but_ends_of_lines_and_tabs(text: str) -> None:
    assert {each for each in harmless(text) if unicodedata.category(each) == "Cc"} <= {"\n", "\t"}


def test_text_of_any_script_and_its_lines_stay() -> None:
    assert harmless("Grüße,\n\tप्रणाम 👩‍👧 שלום") == "Grüße,\n\tप्रणाम 👩‍👧 שלום"


def test_an_escape_sequence_loses_what_makes_it_one() -> None:
    assert harmless(f"a{TITLE}b{CLEAR}c\rd") == "a]0;ownedb2Jcd"


def test_in_a_pipe_text_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert for_stdout(TITLE) == TITLE


def test_on_a_terminal_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        shown = for_stdout(TITLE)
    os.close(ours)

    assert shown == "]0;owned"


def test_what_a_node_says_of_itself_does_not_steer_the_terminal() -> None:
    node = Node(
        "attic",
        status="online",
        card={"device": f"Pi{TITLE}", "model": f"phi{CLEAR}"},
        state={
            "model_state": TITLE,
            "level": TITLE,
            "reason": CLEAR,
            "faults": [TITLE],
            "since": 1,
        },
    )
    output = io.StringIO()
    Console(file=output, markup=False, width=200).print(table([node]))

    assert not [
        each for each in output.getvalue() if unicodedata.category(each) == "Cc" and each != "\n"
    ]
