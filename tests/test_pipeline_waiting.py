"""Who waits hears so, and a board that is hot or short of memory makes them wait longer."""

import asyncio

import pytest

from edged.engine.frames import Cancel
from edged.errors import Overheated
from edged.messages import Accepted, Waiting
from edged.pipeline import SIGN_OF_LIFE_S
from tests.pipeline_line import Line

# Signs of life


async def test_who_waits_hears_so_now_and_then() -> None:
    line = Line()
    line.ask("a")
    requester = line.ask("b")
    living = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.03))
    waiting = await requester.hears(Waiting)
    living.cancel()

    assert waiting.reason == "1 prompts are being answered, 1 wait"


async def test_nobody_waits_longer_than_that_for_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, sleep = asyncio.get_running_loop(), asyncio.sleep
    line = Line()
    line.ask("a")
    requester = line.ask("b")
    stream = line.pipeline._jobs["kitchen", "b"].stream
    began_s = now_s = stream.last_sent_s

    async def pass_time(delay_s: float) -> None:
        nonlocal now_s
        now_s += delay_s
        await sleep(0)

    await pass_time(0.5)  # so that it falls between two looks
    monkeypatch.setattr(loop, "time", lambda: now_s)
    monkeypatch.setattr(asyncio, "sleep", pass_time)
    living = asyncio.create_task(line.pipeline.give_signs_of_life())
    while not isinstance(requester.last, Waiting):
        await sleep(0)
    living.cancel()

    assert stream.last_sent_s - began_s <= SIGN_OF_LIFE_S


@pytest.mark.parametrize(
    ("pieces", "reason"), [([], "the prompt is being read"), (["x"], "still answering")]
)
async def test_who_is_being_answered_hears_how_far_it_is(pieces: list[str], reason: str) -> None:
    line = Line()
    requester = line.ask("a")
    for piece in pieces:
        line.piece("a", piece, 1)
    living = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.03))
    waiting = await requester.hears(Waiting)
    living.cancel()

    assert waiting.reason == reason


async def test_who_waits_for_the_model_hears_why() -> None:
    line = Line()
    line.lose_worker("the last worker was ended by SIGKILL")
    requester = line.ask("a")
    living = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.03))
    waiting = await requester.hears(Waiting)
    living.cancel()

    assert "SIGKILL" in waiting.reason


# A board that is short of memory, or hot


async def test_a_prompt_for_an_unloaded_model_waits() -> None:
    line = Line()
    line.unload()
    requester = line.ask("a")

    assert isinstance(requester.last, Accepted)
    assert line.pipeline.queued == 1


async def test_an_overheated_board_ends_what_it_was_answering() -> None:
    line = Line()
    requester = line.ask("a")
    line.piece("a", "hal", 1)
    line.pipeline.sleep(Overheated("too hot", retry_after_s=60))

    assert (requester.last.code, requester.last.retry_after_s) == ("overheated", 60)
    assert line.engine.cancelled == [Cancel(1, "cancelled")]


async def test_an_overheated_board_keeps_those_who_wait() -> None:
    line = Line()
    line.ask("a")
    waiting = line.ask("b")
    line.pipeline.sleep(Overheated("too hot"))
    running = line.running
    line.pipeline.wake()

    assert isinstance(waiting.last, Accepted)
    assert (running, line.running) == (["a"], ["a", "b"])


async def test_those_who_wait_are_told_level_and_reason() -> None:
    line = Line()
    requester = line.ask("a")
    line.pipeline.tell_level("throttled", "held below 80 °C")
    task = asyncio.create_task(line.pipeline.give_signs_of_life(every_s=0.01))
    waiting = await requester.hears(Waiting)
    task.cancel()

    assert (waiting.level, waiting.reason) == ("throttled", "held below 80 °C")


async def test_who_is_being_answered_hears_of_a_pause_once() -> None:
    line = Line()
    requester = line.ask("a")
    for _ in range(2):
        line.pipeline.tell_level("paused", "far above its limit")

    assert requester.messages[1:] == [Waiting("paused", "far above its limit", None)]


async def test_who_wants_no_stream_hears_nothing_of_a_pause() -> None:
    line = Line()
    requester = line.ask("a", stream=False)
    line.pipeline.tell_level("paused", "far above its limit")

    assert [type(message) for message in requester.messages] == [Accepted]


async def test_a_slower_pace_makes_waiting_times_longer() -> None:
    line = Line()
    line.ask("a")
    line.finish("a")
    line.ask("b")
    line.pipeline.speed = 1.0
    usual_s = line.ask("c").last.eta_s
    line.pipeline.speed = 0.5
    slow_s = line.ask("d").last.eta_s

    assert slow_s == pytest.approx(2 * usual_s * 2, rel=0.01)
