"""Choosing a token from logits, in numpy, the same for every engine.

The order of the filters is the one users of llama.cpp know: repetition penalty, top-k,
top-p, min-p, then temperature. One draw of the generator a token, so a seed reproduces
a text as long as the logits are the same.
"""

from collections import deque

import numpy as np

from edged.engine.protocol import Logits
from edged.errors import EngineFailed
from edged.messages import Sampling

REPEAT_WINDOW_TOKENS = 64


class Sampler:
    """The sampling state of one prompt."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = np.random.Generator(np.random.PCG64(sampling.seed))
        self._recent: deque[int] = deque(maxlen=REPEAT_WINDOW_TOKENS)

    def pick(self, logits: Logits) -> int:
        """The next token, from logits of shape (vocabulary,).

        Raises ``EngineFailed`` where the logits are no numbers.
        """
        if self._sampling.repeat_penalty != 1 and self._recent:
            logits = self._penalised(logits)
        token = int(np.argmax(logits))
        if not np.isfinite(logits[token]):
            raise EngineFailed("the model's output is not a number; its weights may be damaged")
        if self._sampling.temperature > 0:
            token = self._draw(logits)
        self._recent.append(token)
        return token

    def _penalised(self, logits: Logits) -> Logits:
        logits = logits.copy()
        seen = np.fromiter(set(self._recent), dtype=np.int64)
        chosen = logits[seen]
        penalty = self._sampling.repeat_penalty
        logits[seen] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
        return logits

    def _draw(self, logits: Logits) -> int:
        wanted = self._sampling
        count = min(wanted.top_k or len(logits), len(logits))
        if count < len(logits):
            worst = np.partition(logits, len(logits) - count)[len(logits) - count]
            best = np.flatnonzero(logits >= worst)
        else:
            best = np.arange(len(logits))
        # Ties fall to the lower id, also where they cross the border of the top k.
        best = best[np.argsort(-logits[best], kind="stable")][:count]
        scores = logits[best].astype(np.float64)
        odds = _softmax(scores)
        keep = len(odds)
        if wanted.top_p < 1:
            keep = min(keep, int(np.searchsorted(np.cumsum(odds), wanted.top_p)) + 1)
        if wanted.min_p > 0:
            keep = min(keep, int(np.count_nonzero(odds >= wanted.min_p * odds[0])))
        with np.errstate(over="ignore"):  # a temperature next to 0 makes all but the first -inf
            odds = _softmax((scores[: max(keep, 1)] - scores[0]) / wanted.temperature)
        drawn = int(np.searchsorted(np.cumsum(odds), self._generator.random(), side="right"))
        return int(best[min(drawn, len(odds) - 1)])


def _softmax(scores: "np.typing.NDArray[np.float64]") -> "np.typing.NDArray[np.float64]":
    weights = np.exp(scores - scores[0])  # sorted, so the first is the largest
    odds: np.typing.NDArray[np.float64] = weights / weights.sum()
    return odds
