"""What no model at all would get: the answer of the most similar training prompt."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from tools.tiny_model.conversations import Conversation


class NearestPrompt:
    """The answer of the training prompt with the most similar words and letters.

    Similar is the cosine of TF-IDF weights.
    """

    def __init__(self, training: Iterable[Conversation]) -> None:
        pairs = {user: answer for sample in training for user, answer in sample.turns[:1]}
        self.answers: list[str] = list(pairs.values())
        grams = [Counter(_grams(prompt)) for prompt in pairs]
        seen = Counter(gram for counts in grams for gram in counts)
        self.rarity = {gram: math.log(len(grams) / n) for gram, n in seen.items()}
        rows: dict[str, list[int]] = {}
        weights: dict[str, list[float]] = {}
        for i, counts in enumerate(grams):
            for gram, weight in self._weights(counts).items():
                rows.setdefault(gram, []).append(i)
                weights.setdefault(gram, []).append(weight)
        self.found_in = {
            gram: (np.array(rows[gram]), np.array(weights[gram], np.float32)) for gram in rows
        }

    def _weights(self, counts: Counter[str]) -> dict[str, float]:
        weights = {g: n * self.rarity[g] for g, n in counts.items() if g in self.rarity}
        length = math.sqrt(sum(w * w for w in weights.values())) or 1.0
        return {gram: weight / length for gram, weight in weights.items()}

    def __call__(self, prompt: str) -> str:
        """The answer of the nearest prompt."""
        likeness = np.zeros(len(self.answers), np.float32)
        for gram, weight in self._weights(Counter(_grams(prompt))).items():
            rows, others = self.found_in[gram]
            likeness[rows] += weight * others
        return self.answers[int(likeness.argmax())]


def _grams(text: str) -> Iterable[str]:
    """Words, pairs of words, and groups of four letters."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    yield from words
    yield from (f"{a} {b}" for a, b in pairwise(words))
    joined = " ".join(words)
    yield from (f"#{joined[i : i + 4]}" for i in range(len(joined) - 3))
