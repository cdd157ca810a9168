"""What the two sides see, and their processes."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edged.bench import servers
from edged.bench.busy import busy
from edged.bench.figures import Added, Arrival
from edged.bench.node import added_to
from edged.bench.servers import answer_of, require
from edged.bench.sides import Child, cpu_s, resume, suspend
from edged.bench.sweep import counts
from edged.errors import EdgedError, EngineUnavailable

STAMPS = {"first_piece_s": 12.0, "first_piece_n": 1, "prefill_s": 1.9}


def event(text: str | None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"delta": delta, "finish_reason": None}], **more}


def test_what_mqtt_adds_is_before_the_first_step_and_after_the_first_piece():
    added = added_to(10.0, [Arrival(12.002, 1)], STAMPS)

    assert added is not None
    assert added.before_ms == pytest.approx(100)
    assert added.after_ms == pytest.approx(2)
    assert Added(1.0, 2.0).total_ms == 3.0


@pytest.mark.parametrize("stamps", [None, STAMPS | {"first_piece_n": 2}])
def test_where_the_first_token_had_no_text_nothing_is_known(stamps: dict[str, Any] | None):
    assert added_to(10.0, [Arrival(12.0, 2)], stamps) is None


def test_a_servers_events_with_text_are_tokens_and_its_own_count_is_the_answers():
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    events = [
        (1.0, event("")),
        (2.0, event("a")),
        (2.5, event("b")),
        (3.0, event(None)),
        (3.1, {"choices": [], "usage": usage}),
    ]

    found = answer_of(0.5, iter(events))

    assert found.arrivals == (Arrival(2.0, 1), Arrival(2.5, 2))
    assert (found.asked_s, found.done_s) == (0.5, 3.0)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (7, 3, 0)


def test_a_server_without_a_count_is_counted():
    assert answer_of(0.0, iter([(1.0, event("a")), (2.0, event("b"))])).completion_tokens == 2


@pytest.mark.parametrize("peer", ["xllamacpp", "llama_cpp_server"])
def test_a_missing_peer_says_what_to_install(peer: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(servers.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(EngineUnavailable, match=r"pip install 'edged\[bench\]'"):
        require(peer)


def test_a_child_that_fails_shows_the_end_of_its_log(tmp_path: Path):
    child = Child(
        [sys.executable, "-c", "raise SystemExit('no such model')"], tmp_path / "log", piped=True
    )
    with pytest.raises(EdgedError, match=r"loading fails; its log ends with:\nno such model"):
        child.read("loading")
    child.end()


def test_a_child_hears_and_answers_and_ends_with_its_stdin(tmp_path: Path):
    child = Child(
        [sys.executable, "-uc", "for line in __import__('sys').stdin: print(line, end='')"],
        tmp_path / "log",
        piped=True,
    )
    child.write(json.dumps([1]))
    assert child.read("an answer") == "[1]\n"
    child.end()

    assert child.has_ended


def test_who_is_suspended_computes_nothing(tmp_path: Path):
    child = Child([sys.executable, "-c", "while True: pass"], tmp_path / "log")
    try:
        while cpu_s(child.pid) == 0:
            time.sleep(0.01)
        suspend(child.pid)
        time.sleep(0.05)
        used_s = cpu_s(child.pid)
        time.sleep(0.1)
        assert cpu_s(child.pid) == used_s
        resume(child.pid)
        while cpu_s(child.pid) == used_s:
            time.sleep(0.01)
    finally:
        child.end()


def test_who_is_suspended_can_be_ended(tmp_path: Path):
    child = Child([sys.executable, "-c", "while True: pass"], tmp_path / "log")
    suspend(child.pid)
    child.end()

    assert child.has_ended


def test_the_time_of_children_counts(tmp_path: Path):
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    child = Child([sys.executable, "-c", script], tmp_path / "log")
    try:
        while cpu_s(child.pid) < 0.3:  # far above what the parent takes to start
            time.sleep(0.01)
    finally:
        os.killpg(child.pid, 9)
        child.end()


def test_of_a_process_that_is_gone_no_time_is_known():
    assert cpu_s(2**22 + 1) == 0.0


def test_a_core_is_kept_busy_by_a_process_that_may_run_nowhere_else():
    core = min(os.sched_getaffinity(0))
    with busy(core):
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        assert any(os.sched_getaffinity(int(child)) == {core} for child in children)


@pytest.mark.parametrize(
    ("cores", "tried"),
    [(1, [1]), (4, [1, 2, 3, 4]), (8, [*range(1, 9)]), (14, [*range(1, 9), 12, 14])],
)
def test_numbers_of_threads_are_tried_up_to_all_cores(cores: int, tried: list[int]):
    assert counts(cores) == tried
