"""What may happen a thousand times a second is a line a minute."""

import logging

import pytest

from edged import minute_log
from edged.minute_log import MinuteLog

log = logging.getLogger("test")


def test_the_first_time_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    MinuteLog(log, "%d ignored, the last on %s").count("a/topic")

    assert caplog.messages == ["1 ignored, the last on a/topic"]


def test_what_follows_is_counted_and_told_a_minute_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(minute_log.time, "monotonic", lambda: now_s)
    told = MinuteLog(log, "%d ignored, the last on %s")
    for number in range(5):
        told.count(f"topic/{number}")
    now_s += 60
    told.count("topic/5")

    assert caplog.messages == ["1 ignored, the last on topic/0", "5 ignored, the last on topic/5"]
