"""A grammar is tried where a crash does no harm, and what came of it is remembered."""

import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")

from edged.engine import grammar_gate
from edged.engine.grammar_gate import GrammarGate, Verdict, check
from edged.engine.json_schema import grammar_of

GOOD = 'root ::= "on" | "off"'
BAD = "root ::= missing"
# Every letter triples the ways in which those before it can be read.
MONSTER = 'root ::= "a" root | "a" root "b" | "a" root "c"'


class Told:
    """Waits until something was found out."""

    def __init__(self) -> None:
        self._times: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.threads: set[str] = set()

    def __call__(self) -> None:
        self.threads.add(threading.current_thread().name)
        self._times.put(None)

    def wait(self) -> None:
        self._times.get(timeout=60)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def gate(told: Told) -> GrammarGate:
    return GrammarGate(told)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grammars that were tried; each is taken."""
    asked: list[str] = []

    def fake(grammar: str) -> Verdict:
        asked.append(grammar)
        return Verdict(None)

    monkeypatch.setattr(grammar_gate, "check", fake)
    return asked


def pretend(monkeypatch: pytest.MonkeyPatch, path: Path, script: str) -> None:
    """Let the check be this script."""
    program = path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_grammar_that_compiles_is_taken(gate: GrammarGate, told: Told) -> None:
    gate.ask(GOOD)
    told.wait()

    assert gate.is_known(GOOD)
    assert gate.refusal(GOOD) is None


def test_a_grammar_that_does_not_compile_is_refused(gate: GrammarGate, told: Told) -> None:
    gate.ask(BAD)
    told.wait()

    assert gate.refusal(BAD) == "llama.cpp does not take the grammar"


def test_nothing_is_known_before_it_was_tried(gate: GrammarGate) -> None:
    assert not gate.is_known(GOOD)


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object"},
        {"type": "json_schema", "schema": {"type": "string", "maxLength": 2000}},
    ],
)
def test_what_schemas_become_is_taken(response_format: dict[str, object]) -> None:
    assert check(grammar_of(response_format)) == Verdict(None)


def test_a_grammar_that_takes_all_memory_or_time_is_refused() -> None:
    verdict = check(MONSTER)

    assert verdict.refusal is not None
    # Memory, where the machine is quick enough to use it all within the time.
    assert "more than llama.cpp can compile" in verdict.refusal or "longer" in verdict.refusal


def test_a_crash_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, "kill -SEGV $$")

    assert check(GOOD) == Verdict("its grammar is more than llama.cpp can compile; simplify it")


def test_what_takes_too_long_is_refused_for_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(grammar_gate, "LIMIT_S", 0.2)

    assert not check(GOOD).lasts


def test_what_cannot_be_tried_is_refused_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    verdict = check(GOOD)

    assert verdict == Verdict(
        "its grammar cannot be tried now: No such file or directory", lasts=False
    )


def test_a_refusal_for_now_is_given_once(
    monkeypatch: pytest.MonkeyPatch, gate: GrammarGate, told: Told
) -> None:
    monkeypatch.setattr(grammar_gate, "check", lambda _grammar: Verdict("busy", lasts=False))
    gate.ask(GOOD)
    told.wait()

    assert gate.refusal(GOOD) == "busy"
    assert not gate.is_known(GOOD)


def test_a_grammar_is_tried_once(gate: GrammarGate, told: Told, checked: list[str]) -> None:
    gate.ask(GOOD)
    told.wait()
    gate.ask(GOOD)
    gate.ask(BAD)
    told.wait()

    assert checked == [GOOD, BAD]


def test_grammars_are_tried_in_a_thread_of_their_own(
    gate: GrammarGate, told: Told, checked: list[str]
) -> None:
    gate.ask(GOOD)
    told.wait()

    assert told.threads == {"grammars"}


def test_what_was_asked_for_last_is_remembered(
    monkeypatch: pytest.MonkeyPatch, gate: GrammarGate, told: Told, checked: list[str]
) -> None:
    monkeypatch.setattr(grammar_gate, "KEPT", 2)
    for grammar in ("a", "b"):
        gate.ask(grammar)
        told.wait()
    gate.ask("a")
    gate.ask("c")
    told.wait()

    assert [gate.is_known(grammar) for grammar in "abc"] == [True, False, True]


def run_check(grammar: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edged.engine.grammar_check"],
        input=grammar,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_check_says_nothing_of_what_it_takes() -> None:
    run = run_check(GOOD)

    assert (run.returncode, run.stdout) == (0, "")


def test_the_check_says_in_one_line_what_it_refuses() -> None:
    run = run_check(BAD)

    assert (run.returncode, run.stdout.splitlines()) == (1, ["llama.cpp does not take the grammar"])
