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
from edged.errors import EdgedError, OutOfMemory, PromptFailure
from edged.messages import ChatMessage, Pace, Sampling

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


class Fixed:
    """Loads that are always the same; tells what it heard of them."""

    def __init__(self, *loads: Load | EdgedError) -> None:
        self.loads = list(loads)
        self.heard: list[str] = []
        self.has_another = False

    async def next_load(self) -> Load:
        load = self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]
        if isinstance(load, EdgedError):
            raise load
        return load

    def served(self) -> None:
        self.heard.append("served")

    def failed(self, reason: str, load: Load | None, *, died: bool = False) -> bool:
        self.heard.append(f"{'died' if died else 'failed'}: {reason}")
        return self.has_another


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.ready: asyncio.Queue[Ready] = asyncio.Queue()
        self.frames: asyncio.Queue[Piece | Finished | Refused] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self.refused: asyncio.Queue[PromptFailure] = asyncio.Queue()
        self.unloaded: asyncio.Queue[None] = asyncio.Queue()

    def engine_ready(self, ready: Ready) -> None:
        self.ready.put_nowait(ready)

    def engine_frame(self, frame: Piece | Finished | Refused) -> None:
        self.frames.put_nowait(frame)

    def engine_lost(self, reason: str) -> None:
        self.lost.put_nowait(reason)

    def engine_refused(self, failure: PromptFailure) -> None:
        self.refused.put_nowait(failure)

    def engine_unloaded(self) -> None:
        self.unloaded.put_nowait(None)


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
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.submit(submit(1, "abc"))
        text = ""
        while not isinstance(frame := await soon(listener.frames), Finished):
            text += frame.text
        assert (text + frame.text, frame.finish_reason) == ("abc", "stop")


async def test_a_cancel_ends_a_job_with_the_reason_given(tmp_path: Path) -> None:
    handle = EngineHandle(Fixed(load(tmp_path, echo_step_ms=50)))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.submit(submit(1, "x" * 90))
        await soon(listener.frames)
        handle.cancel(Cancel(1, "deadline"))
        while not isinstance(frame := await soon(listener.frames), Finished):
            pass
        assert frame.finish_reason == "deadline"


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        first = handle.pid
        os.kill(first, signal.SIGKILL)
        assert await soon(listener.lost) == "the worker was ended by SIGKILL"
        await soon(listener.ready)
        assert handle.pid != first
        assert handle.state is ModelState.SERVING


async def test_a_worker_that_stops_in_its_tracks_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_MIN_S", 2.5)
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        os.kill(handle.pid, signal.SIGSTOP)
        assert "said nothing" in await soon(listener.lost)
        await soon(listener.ready)


async def test_a_step_far_longer_than_predicted_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_MIN_S", 0.5)
    monkeypatch.setattr(module, "STALL_FACTOR", 0.1)  # the first step is predicted to take 10 s
    handle = EngineHandle(Fixed(load(tmp_path, echo_step_ms=9000)))
    async with served(handle) as listener:
        await soon(listener.ready)
        monkeypatch.setattr(module, "STALL_MIN_S", 1.5)
        handle.submit(submit(1, "x"))
        assert "a step took" in await soon(listener.lost)
        assert listener.refused.empty()


async def test_a_model_that_cannot_be_loaded_is_refused_and_not_tried_at_once(
    tmp_path: Path,
) -> None:
    handle = EngineHandle(
        Fixed(load(tmp_path, engine="auto", model_path=str(tmp_path / "none.gguf")))
    )
    async with served(handle) as listener:
        failure = await soon(listener.refused)
        assert "none.gguf" in failure.error
        assert (failure.code, failure.may_retry) == ("engine_failed", False)
        assert handle.state is ModelState.REFUSED
        assert handle.starts == 1


async def test_memory_that_is_missing_starts_no_worker_until_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY_LOOK_S", 0.05)
    shortage = OutOfMemory("3 needed, 2 available")
    handle = EngineHandle(Fixed(shortage, shortage, load(tmp_path)))
    async with served(handle) as listener:
        assert await soon(listener.refused) is shortage
        assert (handle.state, handle.refusal) == (ModelState.REFUSED, shortage)
        await soon(listener.ready)
        assert handle.starts == 1
        assert (handle.state, handle.refusal) == (ModelState.SERVING, None)


async def test_a_restart_loads_what_is_next(tmp_path: Path) -> None:
    loads = Fixed(load(tmp_path), load(tmp_path, ctx=99))
    handle = EngineHandle(loads)
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.hold()
        assert (handle.state, handle.ready) == (ModelState.SWITCHING, None)
        handle.restart()
        ready = await soon(listener.ready)
        assert ready.ctx == 99
        assert loads.heard == ["served", "served"]
        assert listener.lost.empty()


async def test_a_worker_that_does_not_load_in_time_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOAD_MIN_S", 0.0)
    monkeypatch.setattr(module, "WATCH_S", 0.01)
    loads = Fixed(load(tmp_path))
    handle = EngineHandle(loads)
    async with served(handle) as listener:
        assert "had not loaded the model after 0 s" in await soon(listener.lost)
        assert loads.heard == ["died: the worker had not loaded the model after 0 s and was ended"]


async def test_what_fails_in_a_switch_is_followed_at_once_by_what_served_before(
    tmp_path: Path,
) -> None:
    broken = load(tmp_path, engine="auto", model_path=str(tmp_path / "none.gguf"))
    loads = Fixed(load(tmp_path), broken, load(tmp_path, ctx=99))
    loads.has_another = True
    handle = EngineHandle(loads)
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.hold()
        handle.restart()
        ready = await soon(listener.ready)
        assert ready.ctx == 99
        assert "none.gguf" in loads.heard[1]
        assert listener.refused.empty()


async def test_the_last_words_of_a_worker_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handle = EngineHandle(Fixed(load(tmp_path, slots="two")))  # what no daemon would send
    async with served(handle) as listener:
        await soon(listener.lost)
    assert "the worker's last words" in caplog.text
    assert "TypeError" in caplog.text


async def test_ending_the_handle_ends_the_worker(tmp_path: Path) -> None:
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        pid = handle.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_unloaded_worker_is_gone_until_it_is_wanted(tmp_path: Path) -> None:
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.unload("nobody asks")
        await soon(listener.unloaded)
        unloaded = handle.state, handle.pid, handle.reason
        handle.load()
        await soon(listener.ready)

        assert unloaded == (ModelState.UNLOADED, None, "nobody asks")
        assert handle.state is ModelState.SERVING


async def test_an_unloading_is_no_failure(tmp_path: Path) -> None:
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.unload("nobody asks")
        await soon(listener.unloaded)

        assert listener.lost.empty()


async def test_while_it_is_unloaded_prompts_can_be_refused(tmp_path: Path) -> None:
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.unload("memory is scarce")
        await soon(listener.unloaded)
        handle.refuse(OutOfMemory("memory is scarce"))

        assert handle.state is ModelState.REFUSED
        assert (await soon(listener.refused)).error == "memory is scarce"


async def test_a_pace_holds_for_the_next_worker_too(tmp_path: Path) -> None:
    handle = EngineHandle(Fixed(load(tmp_path)))
    async with served(handle) as listener:
        await soon(listener.ready)
        handle.pace(Pace(max_prompt_tokens=5))
        handle.restart()
        await soon(listener.ready)
        handle.submit(submit(1, "far too long for that"))

        assert (await soon(listener.frames)).code == "out_of_memory"
