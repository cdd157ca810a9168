"""Reads the phrase lists beside the code: `phrase_lists/*.txt`, one phrase a line."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "phrase_lists"


@cache
def lines(name: str) -> tuple[str, ...]:
    """The phrases of one list, in order; a phrase that stands twice is chosen twice as often."""
    return tuple((FOLDER / f"{name}.txt").read_text().splitlines())


@cache
def words(name: str) -> tuple[str, ...]:
    """The words of one list."""
    return tuple((FOLDER / f"{name}.txt").read_text().split())
