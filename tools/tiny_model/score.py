"""How many answers are right on the two committed evaluation sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress

from rich.progress import track

from tools.tiny_model.dataset import COMMANDS, OFF_TOPIC, read_cases
from tools.tiny_model.frames import FRESH
from tools.tiny_model.parse import parse_answer, says_what_it_is

MAX_TOKENS = 96
"""Longer than any answer that is right."""

Answer = Callable[[str], str]
"""Prompt to answer."""


@dataclass(frozen=True)
class Score:
    """Right answers of one set, and each wrong one with its prompt."""

    right: int
    asked: int
    wrong: tuple[tuple[str, str], ...]

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.right / self.asked


def right_command(case: dict[str, str], answer: str) -> bool:
    """Whether the answer names the device, the room and the action of the case."""
    said = parse_answer(answer)
    return said is not None and all(said[part] == case[part] for part in said)


def score(answer: Answer, name: str) -> dict[str, Score]:
    """Ask everything; `fresh commands` are those of the sentences in `frames.FRESH`."""
    commands = read_cases(COMMANDS)
    fresh = [case["template"] in FRESH for case in commands]
    answers = [
        answer(case["prompt"])
        for case in track(commands, description=f"{name}: commands", transient=True)
    ]
    right = [right_command(case, said) for case, said in zip(commands, answers, strict=True)]
    off_topic = read_cases(OFF_TOPIC)
    others = [
        answer(case["prompt"])
        for case in track(off_topic, description=f"{name}: off-topic", transient=True)
    ]
    about = [says_what_it_is(said) for said in others]
    return {
        "commands": _score(commands, answers, right),
        "fresh commands": _score(
            list(compress(commands, fresh)),
            list(compress(answers, fresh)),
            list(compress(right, fresh)),
        ),
        "off-topic": _score(off_topic, others, about),
    }


def _score(cases: list[dict[str, str]], answers: list[str], right: list[bool]) -> Score:
    pairs = zip(cases, answers, right, strict=True)
    wrong = tuple((case["prompt"], said) for case, said, ok in pairs if not ok)
    return Score(sum(right), len(cases), wrong)
