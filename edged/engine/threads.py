"""How many threads compute a step: measured while running, not assumed.

Threads wait for one another many times in a step. On an idle machine more of them are faster;
where another process has taken a core, the one that waits for it holds up all the others, and
fewer do better (Phi-3-mini's shape on 2 cores, one of them kept busy: with 2 threads 7.5
tokens/s, with 1 thread 8.8).
So where others are at work the number is tried out against its neighbours, at once when steps
have become slower; where nobody is, all threads are used, and nothing is tried.
"""

import math
from collections import deque
from collections.abc import Hashable
from statistics import median
from typing import Final

TRIAL_STEPS: Final = 2
"""Measured with a neighbouring number; one more before them, while caches and cores settle."""
SLOWER: Final = 1.25
"""Against the best time known: the machine may have become busy, or idle again."""
BETTER: Final = 0.95
"""A neighbour must take less than this of the time to be preferred."""
FIRST_TRIAL_S: Final = 4.0
LAST_TRIAL_S: Final = 64.0
"""Trials that found nothing better become rarer, up to this, where all threads are in use."""
OTHERS_CORES: Final = 0.5
"""Others' work that leaves all cores to us; our own daemon and broker take less."""
FREED_S: Final = 1.0
"""After a trial, when more threads are tried again where nobody else is at work any more."""
TRIAL_SHARE: Final = 0.04
"""Of all time, what trials may cost, as long as that makes them no rarer than this:"""
DEAR_TRIAL_S: Final = 7.0
HOPELESS: Final = 2.0
"""A trial that takes so many times as long is ended after one look."""
_RECENT_STEPS: Final = 3


class ThreadChoice:
    """The number of threads for one sort of step, between 1 and ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads = most
        self._trial: int | None = None
        self._trial_ratios: list[float] = []
        self._trial_extra_s = 0.0
        self._recent: dict[Hashable, deque[float]] = {}
        self._best_s: dict[Hashable, float] = {}
        self._next_trial_s: float | None = None
        self._pause_s = FIRST_TRIAL_S
        self._tried_s = 0.0
        self._upwards = False

    @property
    def threads(self) -> int:
        """For the step that comes."""
        return self._threads if self._trial is None else self._trial

    @property
    def is_trying(self) -> bool:
        """Whether the step that comes is a trial, whose time says nothing of others."""
        return self._trial is not None

    def learn(
        self, kind: Hashable, took_s: float, now_s: float, others_cores: float | None = None
    ) -> None:
        """A step has taken ``took_s``; only steps of the same ``kind`` are compared.

        ``others_cores`` are busy with what is not ours; ``None`` where that is not known.
        """
        if self._next_trial_s is None:
            self._next_trial_s = now_s + self._pause_s
        if self._trial is not None:
            # Of a kind that is new there is nothing to compare with; it ends the trial.
            typical_s = median(self._recent.get(kind, (0.0,)))
            self._trial_extra_s += max(0.0, took_s - typical_s) if typical_s else 0.0
            self._judge(took_s / typical_s if typical_s else math.inf, now_s)
            return
        recent = self._recent.setdefault(kind, deque(maxlen=_RECENT_STEPS))
        recent.append(took_s)
        if len(recent) < _RECENT_STEPS or self._most == 1:
            return
        typical_s = median(recent)
        best_s = self._best_s[kind] = min(typical_s, self._best_s.get(kind, typical_s))
        is_slower = typical_s > SLOWER * best_s
        is_alone = others_cores is not None and others_cores < OTHERS_CORES
        if is_alone and self._threads == self._most:
            return
        is_freed = is_alone and now_s >= self._tried_s + FREED_S
        if is_slower or is_freed or now_s >= self._next_trial_s:
            self._best_s[kind] = typical_s  # if it stays slower, that is the rule from here on
            self._trial = self._neighbour(down=is_slower)
            if is_slower:
                self._pause_s = FIRST_TRIAL_S / 2  # doubled, should nothing better be found

    def _neighbour(self, *, down: bool) -> int:
        if self._threads == self._most or (down and self._threads > 1):
            self._upwards = False
        elif self._threads == 1:
            self._upwards = True
        else:
            self._upwards = not self._upwards  # turn by turn
        return self._threads + (1 if self._upwards else -1)

    def _judge(self, ratio: float, now_s: float) -> None:
        """A step of the trial took ``ratio`` times what those of its kind took before."""
        self._trial_ratios.append(ratio)
        is_hopeless = ratio > HOPELESS and len(self._trial_ratios) > 1
        if len(self._trial_ratios) <= TRIAL_STEPS and not is_hopeless:
            return
        assert self._trial is not None
        if min(self._trial_ratios[1:]) < BETTER:
            self._threads = self._trial
            self._recent.clear()
            self._best_s.clear()
            self._pause_s = FIRST_TRIAL_S
            # The next number in this direction may be better still; the other one was just left.
            self._next_trial_s, self._upwards = now_s, not self._upwards
        else:
            # Below the most, the machine may be idle again at any moment.
            is_most = self._threads == self._most
            self._pause_s = min(2 * self._pause_s, LAST_TRIAL_S) if is_most else FIRST_TRIAL_S
            dear_s = min(self._trial_extra_s / TRIAL_SHARE, DEAR_TRIAL_S)
            self._next_trial_s = now_s + max(self._pause_s, dear_s)
        self._tried_s = now_s
        self._trial = None
        self._trial_ratios.clear()
        self._trial_extra_s = 0.0
