"""The daemon's hold on real worker processes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edged.engine import handle as module
from edged.engine.frames import Cancel, Finished, Load, Piece, Ready, Refused, Submit
from edged.engine.handle import EngineHandle, ModelState
from edged.messages import ChatMessage, Sampling

PATIENCE_S = 30.0
GREEDY = Sampling(
    max_tokens=100, temperature=0, top_k=0, top_p=1, min_p=0, repeat_penalty=1, seed=1
)


def load(tmp_path: Path, **changes: object) -> Load:
    facts = {
        "engine": "echo",
        "model_path": None,
        "state_dir": str(tmp_path),
        "ctx": None,
        "slots": 1,
        "threads": None,
        "echo_step_ms": 0,
    }
    return Load(**(facts | changes))


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.ready: asyncio.Queue[Ready] = asyncio.Queue()
        self.frames: asyncio.Queue[Piece | Finished | Refused] = asyncio.Queue()
        self.lost: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()

    def engine_ready(self, ready: Ready) -> None:
        self.ready.put_nowait(ready)

    def engine_frame(self, frame: Piece | Finished | Refused) -> None:
        self.frames.put_nowait(frame)

    def engine_lost(self, reason: str, *, refused: bool) -> None:
        self.lost.put_nowait((reason, refused))


@contextlib.asynccontextmanager
async def served(handle: EngineHandle) -> AsyncIterator[Listener]:
    listener = Listener()
    task = asyncio.create_task(handle.run(listener))
    try:
        yield listener
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def soon(queue: "asyncio.Queue[object]") -> object:
    return await asyncio.wait_for(queue.get(), PATIENCE_S)


def submit(job: int, text: str) -> Submit:
    return Submit(job, (ChatMessage("user", text),), GREEDY)


async def test_a_prompt_goes_down_and_its_pieces_come_up(tmp_path: Path) -> None:
    handle = EngineHandle(load(tmp_path))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.submit(submit(1, "abc"))
        text = ""
        while not isinstance(frame := await soon(listener.frames), Finished):
            text += frame.text
        assert (text + frame.text, frame.finish_reason) == ("abc", "stop")


async def test_a_cancel_ends_a_job_with_the_reason_given(tmp_path: Path) -> None:
    handle = EngineHandle(load(tmp_path, echo_step_ms=50))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.submit(submit(1, "x" * 90))
        await soon(listener.frames)
        handle.cancel(Cancel(1, "deadline"))
        while not isinstance(frame := await soon(listener.frames), Finished):
            pass
        assert frame.finish_reason == "deadline"


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    handle = EngineHandle(load(tmp_path))
    async with served(handle) as listener:
        await soon(listener.ready)
        first = handle.pid
        os.kill(first, signal.SIGKILL)
        assert await soon(listener.lost) == ("the worker was ended by SIGKILL", False)
        await soon(listener.ready)
        assert handle.pid != first
        assert handle.state is ModelState.SERVING


async def test_a_worker_that_stops_in_its_tracks_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_MIN_S", 2.5)
    handle = EngineHandle(load(tmp_path))
    async with served(handle) as listener:
        await soon(listener.ready)
        os.kill(handle.pid, signal.SIGSTOP)
        reason, _ = await soon(listener.lost)
        assert "said nothing" in reason
        await soon(listener.ready)


async def test_a_step_far_longer_than_predicted_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_MIN_S", 0.5)
    monkeypatch.setattr(module, "STALL_FACTOR", 0.1)  # the first step is predicted to take 10 s
    handle = EngineHandle(load(tmp_path, echo_step_ms=9000))
    async with served(handle) as listener:
        await soon(listener.ready)
        monkeypatch.setattr(module, "STALL_MIN_S", 1.5)
        handle.submit(submit(1, "x"))
        reason, refused = await soon(listener.lost)
        assert "a step took" in reason
        assert not refused


async def test_a_model_that_cannot_be_loaded_is_refused_and_not_tried_at_once(
    tmp_path: Path,
) -> None:
    handle = EngineHandle(load(tmp_path, engine="auto", model_path=str(tmp_path / "none.gguf")))
    async with served(handle) as listener:
        reason, refused = await soon(listener.lost)
        assert refused
        assert "none.gguf" in reason
        assert handle.state is ModelState.REFUSED
        assert handle.starts == 1


async def test_the_last_words_of_a_worker_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handle = EngineHandle(load(tmp_path, slots="two"))  # what no daemon would send
    async with served(handle) as listener:
        await soon(listener.lost)
    assert "the worker's last words" in caplog.text
    assert "TypeError" in caplog.text


async def test_ending_the_handle_ends_the_worker(tmp_path: Path) -> None:
    handle = EngineHandle(load(tmp_path))
    async with served(handle) as listener:
        await soon(listener.ready)
        pid = handle.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
