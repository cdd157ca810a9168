"""Prompts that nobody has asked before: every client and every round its own, always the same.

They differ from the first word on, so that no cache of prefixes helps either side.
"""

import random
from string import ascii_lowercase
from typing import Final

_TEXT: Final = (
    "the lamp in kitchen is on and door of garage stays open while rain falls over garden "
    "tell me how to keep house warm with less power when nobody there what should be done first "
    "water light window morning evening small long cold dry room table chair people time work day"
)
_WORDS: Final = tuple(_TEXT.split())
_TAG_LETTERS: Final = 6
SAMPLE_WORDS: Final = 24
"""Words of the prompt by which a vocabulary is measured: few enough for any context."""


def prompt(words: int, *, turn: int, client: int) -> str:
    """About so many words of no meaning; ``turn`` and ``client`` make it another."""
    dice = random.Random(f"edged bench, turn {turn}, client {client}")
    tag = "".join(dice.choices(ascii_lowercase, k=_TAG_LETTERS))
    return " ".join([tag, *dice.choices(_WORDS, k=max(words, 1))])


def words_for(prompt_tokens: int, sample_tokens: int) -> int:
    """Words for so many tokens, where ``SAMPLE_WORDS`` of them came to ``sample_tokens``."""
    return max(1, round(prompt_tokens * SAMPLE_WORDS / sample_tokens))
