"""Talk that is no request: greetings, thanks, and questions about edged itself."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from tools.tiny_model.phrases import FOLDER

ABOUT = (
    "I am edged's small demonstration model, so I cannot help with that. "
    "I can control lights, blinds, heating and other devices in your home."
)
"""The answer to everything that is neither a request nor small talk."""


@dataclass(frozen=True)
class Intent:
    """Ways of saying one thing, and the one answer to all of them."""

    answer: str
    said: tuple[str, ...]
    weight: float


def _read() -> tuple[Intent, ...]:
    with (FOLDER / "small_talk.toml").open("rb") as file:
        entries = tomllib.load(file)["intent"]
    return tuple(Intent(e["answer"], tuple(e["said"]), e["weight"]) for e in entries)


INTENTS = _read()
