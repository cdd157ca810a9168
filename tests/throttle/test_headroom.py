"""Headroom: how much of it, and for what."""

from edged.throttle.headroom import MOST_READ_S, Headroom


def spend(headroom: Headroom, seconds: float, *, reading: bool = False, idle: bool = False) -> None:
    for _ in range(int(seconds / 0.5)):
        headroom.update(0.5, is_reading=reading, is_idle=idle)


def test_while_prompts_come_and_go_all_of_it_is_kept() -> None:
    headroom = Headroom()
    for _ in range(20):
        spend(headroom, 60, idle=True)
        spend(headroom, 20)

    assert headroom.share == 1.0


def test_under_a_load_without_pauses_none_is_kept() -> None:
    headroom = Headroom()
    spend(headroom, 1200)

    assert headroom.share == 0.0


def test_what_was_before_it_looked_counts_as_nothing() -> None:
    headroom = Headroom()
    spend(headroom, 20)

    assert headroom.share == 0.0


def test_after_the_first_prompt_a_pause_soon_asks_for_it() -> None:
    headroom = Headroom()
    spend(headroom, 20)
    spend(headroom, 20, idle=True)

    assert headroom.share == 1.0


def test_it_knows_for_how_long_the_prompt_of_now_has_been_read() -> None:
    headroom = Headroom()
    spend(headroom, 7, reading=True)
    reading_s = headroom.reading_s
    spend(headroom, 0.5)

    assert (reading_s, headroom.reading_s) == (7, 0)


def test_it_learns_how_long_prompts_are_read() -> None:
    headroom = Headroom()
    for _ in range(30):
        spend(headroom, 2, reading=True)
        spend(headroom, 10)

    assert 1.9 < headroom.read_s < 2.2


def test_a_very_long_prompt_is_no_burst() -> None:
    headroom = Headroom()
    for _ in range(30):
        spend(headroom, 300, reading=True)
        spend(headroom, 10)

    assert headroom.read_s <= MOST_READ_S
