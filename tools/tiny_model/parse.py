"""Reads device, room and action back out of an answer; strict, so that a slip counts as wrong."""

from __future__ import annotations

import re

from tools.tiny_model.devices import DEVICE
from tools.tiny_model.lexicon import ACTIONS


def _pattern(answer: str) -> re.Pattern[str]:
    words = re.escape(answer)
    words = words.replace(
        re.escape("{d}"), r"the (?P<device>[A-Za-z ]+?) in the (?P<room>[a-z ]+?)"
    )
    words = words.replace(re.escape("{v}"), r"(?P<value>\d{1,3} (?:percent|degrees))")
    return re.compile(rf"^(?:Okay|Of course), I am {words}\.(?: [A-Z][^.!]*[.!])?$")


_PATTERNS = {name: _pattern(action.answer) for name, action in ACTIONS.items()}


def parse_answer(text: str) -> dict[str, str] | None:
    """`device`, `room` and `action` (with its value: `set to 40 percent`), or None."""
    for name, pattern in _PATTERNS.items():
        found = pattern.match(text.strip())
        if found and found["device"] in DEVICE:
            value = found.groupdict().get("value")
            action = f"{name} to {value}" if value else name
            return {"device": found["device"], "room": found["room"], "action": action}
    return None


def says_what_it_is(text: str) -> bool:
    """Whether an answer to an off-topic prompt names edged and something that it can control."""
    lower = text.lower()
    can = re.search(r"\bi can (control|switch|turn|look after)\b", lower)
    thing = re.search(r"\b(lights?|blinds|heating|devices)\b", lower)
    return "edged" in lower and "model" in lower and can is not None and thing is not None
