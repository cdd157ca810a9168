"""What the log says of prompts."""

import logging

import pytest

from edged import prompt_log
from edged.errors import Cancelled, EngineFailed, PromptFailure, QueueFull
from edged.messages import ChatMessage, Prompt, Sampling, Usage
from edged.minute_log import MinuteLog

WORDS = "what nobody else may read"
PROMPT = Prompt(
    id="7",
    client="kitchen",
    messages=(ChatMessage("user", WORDS),),
    sampling=Sampling(8, 0.0, 0, 1.0, 0.0, 1.0, 1),
    digest=b"",
)


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    told = MinuteLog(prompt_log.log, "refused %d prompts; the last: %s")
    monkeypatch.setattr(prompt_log, "_refusals", told)


def fields(record: logging.LogRecord) -> dict[str, str]:
    return {name: value for name, value in vars(record).items() if name.startswith("EDGED_")}


def test_an_answer_is_told_with_its_tokens_and_whose_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prompt_log.answered(PROMPT, Usage(12, 0, 34), 5.62, "stop")

    (record,) = caplog.records
    assert record.getMessage() == "prompt 7 of kitchen: 34 tokens after 12 in 5.6 s, stop"
    assert fields(record) == {"EDGED_PROMPT_ID": "7", "EDGED_CLIENT": "kitchen"}


@pytest.mark.parametrize(
    ("failure", "level"),
    [(Cancelled("enough"), logging.INFO), (EngineFailed("it died"), logging.WARNING)],
)
def test_a_failure_has_its_code_and_is_a_warning_where_the_node_is_to_blame(
    caplog: pytest.LogCaptureFixture, failure: PromptFailure, level: int
) -> None:
    prompt_log.failed(PROMPT, failure)

    (record,) = caplog.records
    assert record.levelno == level
    assert fields(record)["EDGED_CODE"] == failure.code


def test_a_flood_of_refusals_takes_one_line(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        prompt_log.refused(PROMPT, QueueFull("full"))

    (record,) = caplog.records
    assert record.getMessage() == "refused 1 prompts; the last: queue_full, of kitchen"


def test_no_line_has_words_of_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    prompt_log.answered(PROMPT, Usage(1, 0, 1), 1, "stop")
    prompt_log.failed(PROMPT, EngineFailed(WORDS))
    prompt_log.refused(PROMPT, QueueFull(WORDS))

    assert len(caplog.records) == 3
    assert WORDS not in caplog.text
