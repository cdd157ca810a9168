"""Which grammars this process may take: those that a process of its own has compiled before."""

import queue
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

KEPT: Final = 64
"""Verdicts; who asks for a schema asks for it again."""
LIMIT_S: Final = 20.0
"""Of one check; on a Raspberry Pi starting Python and the library takes two or three of them."""


@dataclass(frozen=True)
class Verdict:
    """What came of a check; one that does not last had more to do with the machine."""

    refusal: str | None
    lasts: bool = True


class GrammarGate:
    """Tries grammars one after the other; ``checked`` is called, in a thread, after each."""

    def __init__(self, checked: Callable[[], None]) -> None:
        self._checked = checked
        self._lock = threading.Lock()
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pending: set[str] = set()
        self._thread: threading.Thread | None = None

    def ask(self, grammar: str) -> None:
        """Find out whether ``grammar`` can be used, unless it is known."""
        with self._lock:
            if grammar in self._verdicts:
                self._verdicts.move_to_end(grammar)
                return
            if grammar in self._pending:
                return
            self._pending.add(grammar)
            self._asked.put(grammar)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="grammars", daemon=True)
                self._thread.start()

    def is_known(self, grammar: str) -> bool:
        """Whether it has been tried."""
        with self._lock:
            return grammar in self._verdicts

    def refusal(self, grammar: str) -> str | None:
        """Why a grammar that was tried is refused, if it is."""
        with self._lock:
            verdict = self._verdicts[grammar]
            if not verdict.lasts:
                del self._verdicts[grammar]  # who asks again may have better luck
            return verdict.refusal

    def _run(self) -> None:
        while True:
            grammar = self._asked.get()
            verdict = check(grammar)
            with self._lock:
                self._verdicts[grammar] = verdict
                self._pending.discard(grammar)
                while len(self._verdicts) > KEPT:
                    self._verdicts.popitem(last=False)
            self._checked()


def check(grammar: str) -> Verdict:
    """Try ``grammar``; takes a process, and about half a second."""
    try:
        run = subprocess.run(
            [sys.executable, "-m", "edged.engine.grammar_check"],
            input=grammar.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict(f"its grammar took longer than {LIMIT_S:.0f} s to try", lasts=False)
    except OSError as error:
        return Verdict(f"its grammar cannot be tried now: {error.strerror}", lasts=False)
    if run.returncode == 0:
        return Verdict(None)
    said = run.stdout.decode(errors="replace").strip()
    return Verdict(said or "its grammar is more than llama.cpp can compile; simplify it")
