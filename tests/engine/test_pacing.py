"""The worker keeps to its pace: threads, rests, width, length, and stillness."""

import pytest

from edged.engine.frames import Cancel
from edged.engine.pacing import Pacing
from edged.messages import Pace
from tests.engine.loop_bench import FORMAT_TOKENS, bench, submit


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("duty", "rest_s"), [(1.0, 0.0), (0.5, 0.2), (0.25, 0.6)])
def test_a_rest_makes_work_the_share_that_is_allowed(
    duty: float, rest_s: float, clock: list[float]
) -> None:
    pacing = Pacing()
    pacing.order(Pace(duty_decode=duty))
    pacing.stepped(0.2, is_reading=False)

    assert pacing.rest_s == pytest.approx(rest_s)


def test_reading_has_a_share_of_its_own(clock: list[float]) -> None:
    pacing = Pacing()
    pacing.order(Pace(duty_decode=0.5))
    pacing.stepped(0.2, is_reading=True)

    assert pacing.rest_s == 0


def test_a_rest_passes(clock: list[float]) -> None:
    pacing = Pacing()
    pacing.order(Pace(duty_decode=0.5))
    pacing.stepped(0.2, is_reading=False)
    clock[0] += 0.15

    assert pacing.rest_s == pytest.approx(0.05)


def test_a_rest_ends_with_the_order_for_it(clock: list[float]) -> None:
    pacing = Pacing()
    pacing.order(Pace(duty_decode=0.1))
    pacing.stepped(1.0, is_reading=False)
    pacing.order(Pace())

    assert pacing.rest_s == 0


@pytest.mark.parametrize(("chosen", "allowed", "threads"), [(4, None, 4), (4, 2, 2), (1, 2, 1)])
def test_no_more_threads_than_are_allowed_nor_than_are_best(
    chosen: int, allowed: int | None, threads: int
) -> None:
    pacing = Pacing()
    pacing.order(Pace(threads_decode=allowed))

    assert pacing.threads(chosen, is_reading=False) == threads


def test_a_paused_loop_has_nothing_to_do() -> None:
    on = bench()
    on.loop.submit(submit(1, "hello"))
    on.step(2)
    on.loop.order(Pace(paused=True))

    assert on.loop.idle


def test_an_answer_goes_on_where_it_was_paused() -> None:
    on = bench()
    on.loop.submit(submit(1, "hello"))
    on.step(2)
    on.loop.order(Pace(paused=True))
    on.loop.order(Pace())
    on.run()

    assert on.text(1) == "hello"


def test_a_paused_prompt_can_be_cancelled() -> None:
    on = bench()
    on.loop.submit(submit(1, "hello"))
    on.step(2)
    on.loop.order(Pace(paused=True))
    on.loop.cancel(Cancel(1, "cancelled"))

    assert on.finished(1).finish_reason == "cancelled"


def test_no_more_prompts_are_started_than_the_pace_is_wide() -> None:
    on = bench(slots=3)
    on.loop.order(Pace(width=1))
    on.loop.submit(submit(1, "aaaa"))
    on.loop.submit(submit(2, "bbbb"))
    on.step(3)

    assert {chunk.sequence for batch in on.batches for chunk in batch} == {0}


def test_those_that_wait_are_answered_in_their_turn() -> None:
    on = bench(slots=3)
    on.loop.order(Pace(width=1))
    on.run(submit(1, "aaaa"), submit(2, "bbbb"))

    assert on.ended == [1, 2]


def test_a_prompt_too_long_for_the_memory_is_told_both_counts() -> None:
    on = bench()
    on.loop.order(Pace(max_prompt_tokens=10))
    on.run(submit(1, "x" * 20))

    refused = on.refused(1)
    assert (refused.code, refused.details) == (
        "out_of_memory",
        {"prompt_tokens": FORMAT_TOKENS + 20, "limit": 10},
    )


def test_a_shorter_prompt_is_answered_all_the_same() -> None:
    on = bench()
    on.loop.order(Pace(max_prompt_tokens=10))
    on.run(submit(1, "hello"))

    assert on.text(1) == "hello"
