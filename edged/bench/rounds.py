"""Rounds: the subject, then its peer, then again, so that a machine's moods meet both."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from edged.bench import busy, prompts
from edged.bench.figures import Turn
from edged.bench.sides import Side, cpu_s, resume, suspend
from edged.errors import EdgedError

SETTLE_S = 10.0
"""Within this time after another process came or went, the subject must have found its way."""
IDLE_SHARE = 0.02
"""A side that uses more of one core while it has nothing to do is stopped meanwhile."""
_TICKS_S = 0.05
"""The kernel counts in steps of 10 ms, which is much of a short turn."""

Progress = Callable[[str], None]
"""Is told what comes next, before each of ``Work.steps``."""


@dataclass(frozen=True)
class Work:
    """What every client asks for in every round."""

    clients: int
    prompt_tokens: int
    tokens: int
    rounds: int
    contention: bool = False

    def steps(self, *, has_peer: bool) -> int:
        """How often ``Progress`` is told."""
        sides = 2 if has_peer else 1
        states = 2 if self.contention else 1
        changes = 2 * self.rounds - 1 if self.contention else 0
        return sides + sides * states * self.rounds + changes


@dataclass(frozen=True)
class Pair:
    """One round of both sides with the same prompts."""

    subject: Turn
    peer: Turn | None
    is_busy: bool = False
    """Whether another process kept a core busy."""


class Rounds:
    """Runs the pairs of one comparison."""

    def __init__(
        self, subject: Side, peer: Side | None, work: Work, *, both_fit: bool, progress: Progress
    ) -> None:
        """Both sides stay loaded if ``both_fit``, else each is loaded for its turn."""
        self._subject = subject
        self._peer = peer
        self._work = work
        self._both_fit = both_fit
        self._progress = progress
        self._words = prompts.SAMPLE_WORDS
        self._turns = 0
        self.peer_is_stopped = False
        """Whether the peer has to be kept from the processor during the subject's turns."""

    def run(self) -> list[Pair]:
        """All pairs; the sides are stopped at the end."""
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._warm_up()
            if not self._work.contention:
                return [self._pair() for _ in range(self._work.rounds)]
            core = busy.core_to_keep_busy()
            pairs: list[Pair] = []
            for _ in range(self._work.rounds):
                if pairs:
                    self._settle("quiet again")
                pairs.append(self._pair())
                with busy.busy(core):
                    self._settle(f"core {core} is busy")
                    pairs.append(replace(self._pair(), is_busy=True))
            return pairs

    def _start(self, stack: contextlib.ExitStack) -> None:
        # The subject first: what it loads depends on the memory that is there.
        self._progress(f"{self._subject.name} loads")
        stack.callback(self._subject.stop)
        self._subject.start()
        if self._peer is not None:
            self._progress(f"{self._peer.name} loads")
            stack.callback(self._peer.stop)
            if self._both_fit:
                self._peer.start()

    def _warm_up(self) -> None:
        """Ask without counting: how many tokens a word is, and whether the peer rests."""
        sample = self._subject.ask(self._prompts(), 2)
        self._words = prompts.words_for(self._work.prompt_tokens, sample[0].prompt_tokens)
        peer = self._peer
        if peer is not None and self._both_fit:
            peer.ask(self._prompts(), self._work.tokens)
            before_s, began_s = cpu_s(peer.pid), time.monotonic()
            self._subject.ask(self._prompts(), self._work.tokens)
            used_s, took_s = cpu_s(peer.pid) - before_s, time.monotonic() - began_s
            self.peer_is_stopped = used_s > IDLE_SHARE * took_s + _TICKS_S
        else:
            self._subject.ask(self._prompts(), self._work.tokens)

    def _pair(self) -> Pair:
        texts = self._prompts()
        self._progress(f"{self._subject.name} answers")
        with self._peer_resting():
            subject = self._subject.ask(texts, self._work.tokens)
        peer = self._peer
        if peer is None:
            return Pair(subject, None)
        self._progress(f"{peer.name} answers")
        if self._both_fit:
            before_s, began_s = cpu_s(self._subject.pid), time.monotonic()
            answers = peer.ask(texts, self._work.tokens)
            self._check_rest(cpu_s(self._subject.pid) - before_s, time.monotonic() - began_s)
        else:
            self._subject.stop()
            peer.start()
            peer.ask(self._prompts(), 2)
            answers = peer.ask(texts, self._work.tokens)
            peer.stop()
            self._subject.start()
            self._subject.ask(self._prompts(), 2)
        # A server that does not count its prompts has read what the other side has.
        counted = [
            each if each.prompt_tokens else replace(each, prompt_tokens=ours.prompt_tokens)
            for each, ours in zip(answers, subject, strict=True)
        ]
        return Pair(subject, counted)

    def _settle(self, why: str) -> None:
        """Let the subject answer, uncounted, until it had time to adapt."""
        self._progress(f"{why}: {self._subject.name} has {SETTLE_S:g} s to adapt")
        until_s = time.monotonic() + SETTLE_S
        with self._peer_resting():
            while time.monotonic() < until_s:
                self._subject.ask(self._prompts(), self._work.tokens)

    def _prompts(self) -> list[str]:
        """For every client one that nobody has seen."""
        self._turns += 1
        return [
            prompts.prompt(self._words, turn=self._turns, client=client)
            for client in range(self._work.clients)
        ]

    @contextlib.contextmanager
    def _peer_resting(self) -> Iterator[None]:
        """Keep the peer from the processor, if it does not keep away by itself."""
        if self._peer is None or not self.peer_is_stopped:
            yield
            return
        suspend(self._peer.pid)
        try:
            yield
        finally:
            resume(self._peer.pid)

    def _check_rest(self, used_s: float, took_s: float) -> None:
        """The subject cannot be stopped, since its worker would seem to hang; so it must rest."""
        if used_s > IDLE_SHARE * took_s + _TICKS_S:
            raise EdgedError(
                f"{self._subject.name} used the processor for {used_s:.2f} s of the {took_s:.2f} s "
                "that its peer had, which makes the comparison worthless"
            )
