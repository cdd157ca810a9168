"""Where the log goes, and with which fields."""

import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from edged.telemetry.journal import journal_handler

journal = pytest.importorskip("systemd.journal")


@pytest.fixture
def in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if systemd had connected our stderr."""
    stderr = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino}")


@pytest.fixture
def sent(in_the_journal: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What goes to the journal, line by line."""
    lines: list[dict[str, str]] = []

    def take(*fields: str | bytes) -> None:
        texts = [each.decode() if isinstance(each, bytes) else each for each in fields]
        lines.append(dict(each.split("=", 1) for each in texts))

    monkeypatch.setattr(journal, "sendv", take)
    return lines


def logged(level: int, text: str, *arguments: object, **options: Any) -> None:
    handler = journal_handler()
    assert handler is not None
    log = logging.getLogger("edged.somewhere")
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    try:
        log.log(level, text, *arguments, **options)
    finally:
        log.removeHandler(handler)


def test_a_line_has_its_text_its_priority_and_where_it_comes_from(
    sent: list[dict[str, str]],
) -> None:
    logged(logging.WARNING, "%s (was %s)", "throttled", "nominal")

    (line,) = sent
    assert {name: line[name] for name in ("MESSAGE", "PRIORITY", "LOGGER", "CODE_FUNC")} == {
        "MESSAGE": "throttled (was nominal)",
        "PRIORITY": "4",
        "LOGGER": "edged.somewhere",
        "CODE_FUNC": "logged",
    }
    assert line["SYSLOG_IDENTIFIER"] == "edged"


def test_a_line_about_a_prompt_has_its_fields(sent: list[dict[str, str]]) -> None:
    logged(logging.INFO, "done", extra={"EDGED_PROMPT_ID": "a1", "EDGED_CLIENT": "kitchen"})

    (line,) = sent
    assert (line["EDGED_PROMPT_ID"], line["EDGED_CLIENT"]) == ("a1", "kitchen")


def test_a_field_that_is_not_known_is_left_out(sent: list[dict[str, str]]) -> None:
    logged(logging.INFO, "done", extra={"EDGED_CODE": None})

    assert "EDGED_CODE" not in sent[0]


def test_nothing_goes_there_that_the_journal_would_throw_away_or_has_already(
    sent: list[dict[str, str]],
) -> None:
    logged(logging.INFO, "%d tokens", 12)

    assert [name for name in sent[0] if not name.isupper()] == []
    assert "CODE_ARGS" not in sent[0]


def test_a_traceback_is_in_the_message(sent: list[dict[str, str]]) -> None:
    try:
        int("why")
    except ValueError:
        logged(logging.ERROR, "a defect", exc_info=True)

    assert sent[0]["MESSAGE"].startswith("a defect\nTraceback")
    assert sent[0]["MESSAGE"].endswith("base 10: 'why'")


@pytest.mark.parametrize("stream", [None, "", "1:1", "rubbish", "1"])
def test_where_stderr_is_not_the_journal_it_is_written_to(
    monkeypatch: pytest.MonkeyPatch, stream: str | None
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream is not None:
        monkeypatch.setenv("JOURNAL_STREAM", stream)

    assert journal_handler() is None


def test_without_systemd_python_the_journal_gets_plain_lines(
    in_the_journal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("systemd", "systemd.journal"):
        monkeypatch.setitem(sys.modules, name, None)

    assert journal_handler() is None


def test_plain_lines_have_time_level_and_name() -> None:
    script = (
        "import logging; from edged.telemetry.journal import begin_logging; "
        "begin_logging('INFO'); logging.getLogger('edged.x').warning('hot')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )

    assert run.stderr.endswith(" WARNING edged.x: hot\n")


def test_whoever_logs_nothing_to_the_journal_does_not_import_its_library() -> None:
    script = "import sys, edged.daemon; print('systemd' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout == "False\n"
