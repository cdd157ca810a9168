"""How much sooner a second prompt is answered that begins as the client's first did."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edged.bench import prompts
from edged.bench.figures import Answer
from edged.bench.node import EdgedNode
from edged.bench.sides import Setup
from edged.settings import EngineSettings

PREFIX_TOKENS = 1080
"""By the few words that are tried first; it comes to a little more than 1,000 that are shared."""
QUESTION_WORDS = 8
TOKENS = 4
CTX = 1536


@dataclass(frozen=True)
class Warm:
    """First tokens of two prompts with the same beginning, the second after the first."""

    cold: Answer
    warm: Answer

    @property
    def ratio(self) -> float:
        """Time to the first token, warm ÷ cold."""
        return (self.warm.first_token_s - self.warm.asked_s) / (
            self.cold.first_token_s - self.cold.asked_s
        )


def warm_prefixes(model: Path, settings: EngineSettings, port: int, rounds: int) -> list[Warm]:
    """Every round has a beginning of its own."""
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as folder:
        setup = Setup(model, clients=1, ctx=CTX, threads=settings.threads, is_shape=True)
        node = EdgedNode(setup, settings, port, Path(folder), max_tokens=TOKENS)
        try:
            node.start()
            (sample,) = node.ask([prompts.prompt(prompts.SAMPLE_WORDS, turn=0, client=0)], TOKENS)
            words = prompts.words_for(PREFIX_TOKENS, sample.prompt_tokens)
            pairs = [_pair(node, words, turn) for turn in range(1, rounds + 2)]
            return pairs[1:]  # in the first, the worker learns how fast it reads
        finally:
            node.stop()


def _pair(node: EdgedNode, words: int, turn: int) -> Warm:
    beginning = prompts.prompt(words, turn=turn, client=0)
    cold, warm = (
        node.ask([f"{beginning} {prompts.prompt(QUESTION_WORDS, turn=turn, client=each)}"], TOKENS)
        for each in (1, 2)
    )
    return Warm(cold[0], warm[0])
