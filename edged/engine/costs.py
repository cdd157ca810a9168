"""What steps take on this machine, as measured while they run."""

from typing import Final

FIRST_STEP_S: Final = 10.0
"""What the first step is expected to take, before anything was measured."""
_SHARE: Final = 0.3
"""How much of an estimate a new measurement moves: steps drift, and one may be an outlier."""
_IN_COMMON: Final = 0.5
"""How much of a drift (of its logarithm) is the machine's, and not of this width alone."""


class StepCosts:
    """Seconds a step of so many tokens, and seconds a token of a prompt that is read alone."""

    def __init__(self) -> None:
        self.prefill_s_per_token: float | None = None
        self._step_s: dict[int, float] = {}

    def learn_prefill(self, tokens: int, took_s: float) -> None:
        """A step read ``tokens`` of prompts, and nothing else."""
        self.prefill_s_per_token = _towards(self.prefill_s_per_token, took_s / tokens)

    def learn_decode(self, width: int, took_s: float) -> None:
        """A step was ``width`` tokens wide, of answers or, beside these, of prompts.

        What makes one width slower (a fuller cache, a busy machine) does so to others, but what
        one takes beside the other changes too, and may have been measured wrong at first.
        """
        before = self._step_s.get(width)
        after = _towards(before, took_s)
        if before is not None:
            drift = (after / before) ** _IN_COMMON
            self._step_s = {each: seconds * drift for each, seconds in self._step_s.items()}
        self._step_s[width] = after

    def decode_s(self, width: int) -> float | None:
        """What a step of ``width`` tokens takes: measured, or between those that were.

        Beyond them, as many times as long as it is wide: nothing is promised unseen.
        """
        known = sorted(self._step_s)
        if not known:
            return None
        if width in self._step_s:
            return self._step_s[width]
        below = max((each for each in known if each < width), default=None)
        above = min((each for each in known if each > width), default=None)
        if below is None or above is None:
            nearest = below or known[0]
            return self._step_s[nearest] * max(1.0, width / nearest)
        share = (width - below) / (above - below)
        return self._step_s[below] + share * (self._step_s[above] - self._step_s[below])

    def predict_s(self, prompt_tokens: int, width: int) -> float:
        """What a step will take; ``FIRST_STEP_S`` where nothing like it was measured."""
        decode_s = self.decode_s(width) if width else 0.0
        if prompt_tokens and self.prefill_s_per_token is None:
            return FIRST_STEP_S
        if decode_s is None:
            return FIRST_STEP_S
        return prompt_tokens * (self.prefill_s_per_token or 0.0) + decode_s


def _towards(old: float | None, new: float) -> float:
    return new if old is None else old + _SHARE * (new - old)
