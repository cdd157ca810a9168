"""The level that people read."""

import pytest

from edged.messages import Level
from edged.throttle.levels import BETTER_S, Levels


def after(levels: Levels, speeds: dict[float, float], begin_s: float = 0.0) -> Level:
    """``speeds``: for how many seconds, which."""
    now_s = begin_s
    for seconds, speed in speeds.items():
        for _ in range(int(seconds / 0.5)):
            now_s += 0.5
            levels.update(now_s, 0.5, speed)
    return levels.level


@pytest.mark.parametrize(
    ("speed", "level"), [(1.0, "nominal"), (0.9, "trimmed"), (0.4, "throttled"), (0.0, "paused")]
)
def test_a_level_says_how_fast_it_goes(speed: float, level: Level) -> None:
    assert after(Levels(), {60.0: speed}) == level


def test_a_pause_shows_at_once() -> None:
    assert after(Levels(), {0.5: 0.0}) == "paused"


def test_a_moment_of_slowness_does_not_show() -> None:
    assert after(Levels(), {60.0: 1.0, 0.5: 0.9, 2.0: 1.0}) == "nominal"


def test_it_is_better_when_it_has_been_so_for_a_while() -> None:
    levels = Levels()
    after(levels, {30.0: 0.0})

    assert after(levels, {BETTER_S / 2: 1.0}, begin_s=30) == "paused"
    assert after(levels, {BETTER_S * 2: 1.0}, begin_s=30 + BETTER_S / 2) == "nominal"


def test_since_when_is_told() -> None:
    levels = Levels()
    after(levels, {10.0: 1.0, 20.0: 0.0})

    assert levels.since_s == 10.5
