"""Choosing a token from logits, in numpy, the same for every engine.

The order of the filters is the one users of llama.cpp know: repetition penalty, top-k,
top-p, min-p, then temperature. One draw of the generator a token, so a seed reproduces
a text as long as the logits are the same.

A grammar is asked about the one token that was chosen, which takes microseconds. Only when it
refuses that one are all of them judged, and the same draw chooses again among those that are left.
"""

from collections import deque

import numpy as np

from edged.engine.protocol import Grammar, Logits
from edged.errors import EngineFailed
from edged.messages import Sampling

REPEAT_WINDOW_TOKENS = 64


class Sampler:
    """The sampling state of one prompt, held to a grammar where there is one."""

    def __init__(self, sampling: Sampling, grammar: Grammar | None = None) -> None:
        self._sampling = sampling
        self._grammar = grammar
        self._generator = np.random.Generator(np.random.PCG64(sampling.seed))
        self._recent: deque[int] = deque(maxlen=REPEAT_WINDOW_TOKENS)

    def pick(self, logits: Logits) -> int:
        """The next token, from logits of shape (vocabulary,).

        Raises ``EngineFailed`` where the logits are no numbers.
        """
        if self._sampling.repeat_penalty != 1 and self._recent:
            logits = self._penalised(logits)
        if not np.isfinite(logits[np.argmax(logits)]):
            raise EngineFailed("the model's output is not a number; its weights may be damaged")
        draw = self._generator.random() if self._sampling.temperature > 0 else 0.0
        token = self._choose(logits, draw)
        if self._grammar is not None:
            if not self._grammar.allows(token):
                token = self._choose(self._left(self._grammar, logits), draw)
            self._grammar.accept(token)
        self._recent.append(token)
        return token

    @staticmethod
    def _left(grammar: Grammar, logits: Logits) -> Logits:
        left = grammar.mask(logits)
        if np.isneginf(left).all():
            raise EngineFailed("no token of the model fits the grammar", retryable=False)
        return left

    def _penalised(self, logits: Logits) -> Logits:
        logits = logits.copy()
        seen = np.fromiter(set(self._recent), dtype=np.int64)
        chosen = logits[seen]
        penalty = self._sampling.repeat_penalty
        logits[seen] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
        return logits

    def _choose(self, logits: Logits, draw: float) -> int:
        """The token that ``draw``, in [0, 1), falls on; never one at minus infinity."""
        wanted = self._sampling
        if wanted.temperature == 0:
            return int(np.argmax(logits))
        count = min(wanted.top_k or len(logits), len(logits))
        if count < len(logits):
            worst = np.partition(logits, len(logits) - count)[len(logits) - count]
            best = np.flatnonzero(logits >= worst)
        else:
            best = np.arange(len(logits))
        # Ties fall to the lower id, also where they cross the border of the top k.
        best = best[np.argsort(-logits[best], kind="stable")][:count]
        best = best[logits[best] > -np.inf]  # what a grammar has masked is none of them
        scores = logits[best].astype(np.float64)
        odds = _softmax(scores)
        keep = len(odds)
        if wanted.top_p < 1:
            keep = min(keep, int(np.searchsorted(np.cumsum(odds), wanted.top_p)) + 1)
        if wanted.min_p > 0:
            keep = min(keep, int(np.count_nonzero(odds >= wanted.min_p * odds[0])))
        with np.errstate(over="ignore"):  # a temperature next to 0 makes all but the first -inf
            odds = _softmax((scores[: max(keep, 1)] - scores[0]) / wanted.temperature)
        drawn = int(np.searchsorted(np.cumsum(odds), draw, side="right"))
        return int(best[min(drawn, len(odds) - 1)])


def _softmax(scores: "np.typing.NDArray[np.float64]") -> "np.typing.NDArray[np.float64]":
    weights = np.exp(scores - scores[0])  # sorted, so the first is the largest
    odds: np.typing.NDArray[np.float64] = weights / weights.sum()
    return odds
