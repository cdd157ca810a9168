"""How many answers are right on the two committed evaluation sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.progress import track

from tools.tiny_model.dataset import COMMANDS, OFF_TOPIC, read_cases
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


def score_commands(answer: Answer, name: str) -> Score:
    """Ask every held-out command."""
    wrong = []
    cases = read_cases(COMMANDS)
    for case in track(cases, description=f"{name}: commands", transient=True):
        said = answer(case["prompt"])
        if not right_command(case, said):
            wrong.append((case["prompt"], said))
    return Score(len(cases) - len(wrong), len(cases), tuple(wrong))


def score_off_topic(answer: Answer, name: str) -> Score:
    """Ask every off-topic prompt."""
    wrong = []
    cases = read_cases(OFF_TOPIC)
    for case in track(cases, description=f"{name}: off-topic", transient=True):
        said = answer(case["prompt"])
        if not says_what_it_is(said):
            wrong.append((case["prompt"], said))
    return Score(len(cases) - len(wrong), len(cases), tuple(wrong))
