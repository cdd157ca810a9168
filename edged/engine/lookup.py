"""Speculation by looking up: what followed the last few tokens before may follow again.

Drafts cost nothing to make, and are verified in the batch that decodes the next token anyway:
a step of several tokens of one sequence takes less than as many steps of one. How much less is
measured, and so is how often drafts come true; they are made as long as they pay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MATCH_TOKENS: Final = 3
"""How many tokens must agree before what followed them is proposed."""
LONG_MATCH_TOKENS: Final = 16
"""More agreement than this says nothing more."""
WASTE: Final = 0.01
"""Of the time spent decoding, what drafts that came to nothing may cost."""
GRACE_STEPS: Final = 2.0
"""What they may cost at once, in steps without drafts: enough for one try of three tokens."""
_ACCEPTANCE: Final = {3: 0.5, 5: 0.7, 8: 0.85, LONG_MATCH_TOKENS: 0.95}
"""How many of those drafted come true, by how many tokens agreed, until it was measured."""
_SHARE: Final = 0.05
"""How much of such an estimate one drafted token moves."""


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next; ``matched`` of those before them agree with an earlier place."""

    tokens: list[int]
    matched: int


class Lookup:
    """The tokens of one prompt and its answer, by the places where three in a row stood last."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """The next token of the text."""
        # The last ones are entered only when something follows them.
        if len(self._tokens) >= MATCH_TOKENS:
            self._after[tuple(self._tokens[-MATCH_TOKENS:])] = len(self._tokens)
        self._tokens.append(token)

    def draft(self, most: int) -> Draft | None:
        """What followed the last tokens the last time they stood, at most ``most`` tokens."""
        tokens = self._tokens
        at = self._after.get(tuple(tokens[-MATCH_TOKENS:]))
        if at is None or most < 1:
            return None
        matched = MATCH_TOKENS
        while matched < min(LONG_MATCH_TOKENS, at) and tokens[at - 1 - matched] == tokens[~matched]:
            matched += 1
        return Draft(tokens[at : at + most], matched)


class Speculation:
    """Decides how many tokens to draft, by what drafting has brought so far on this engine."""

    def __init__(self) -> None:
        self._acceptance = dict(_ACCEPTANCE)
        self._spent_s = 0.0
        self._lost_s = 0.0

    def width(self, draft: Draft, cost_s: Callable[[int], float], beside: int = 0) -> int:
        """How many of the drafted tokens to verify.

        ``cost_s`` is what a step takes with so many of them, and ``beside`` how many tokens of
        others are in it, which a wider step holds up. The number that promises the most tokens
        a second of all is taken, and none where drafts have wasted their share of the time.
        """
        plain_s = cost_s(0)
        best, best_rate = 0, (1 + beside) / plain_s
        acceptance = self._acceptance[_class(draft.matched)]
        promised = 1.0 + beside
        for count in range(1, len(draft.tokens) + 1):
            promised += acceptance**count
            takes_s = cost_s(count)
            may_waste_s = WASTE * self._spent_s + GRACE_STEPS * plain_s - self._lost_s
            if promised / takes_s > best_rate and takes_s - plain_s <= may_waste_s:
                best, best_rate = count, promised / takes_s
        return best

    def learn(self, draft: Draft, accepted: int) -> None:
        """How many tokens of ``draft`` came true."""
        kind = _class(draft.matched)
        # The first one refused tells; those behind it were never judged.
        for hit in [1.0] * accepted + [0.0] * (accepted < len(draft.tokens)):
            self._acceptance[kind] += _SHARE * (hit - self._acceptance[kind])

    def spend(self, took_s: float, worth_s: float) -> None:
        """A step took ``took_s``, and ``worth_s`` is what its tokens had taken without drafts."""
        self._spent_s += took_s
        self._lost_s = max(0.0, self._lost_s + took_s - worth_s)


def _class(matched: int) -> int:
    return next(longest for longest in _ACCEPTANCE if matched <= longest)
