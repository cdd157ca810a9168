"""Writes the training set, and the evaluation sets that it must not overlap."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tools.tiny_model.conversations import Conversation, conversation
from tools.tiny_model.devices import DEVICES, RARE_ROOMS, ROOMS
from tools.tiny_model.frames import HELD_OUT
from tools.tiny_model.requests import fill, pick_request

SEED = 20241
PER_HELD_OUT_FRAME = 3
EVAL = Path(__file__).parent / "eval"
COMMANDS = EVAL / "commands.json"
OFF_TOPIC = EVAL / "off_topic.json"

_FILLERS = re.compile(
    r"\b(please|now|thanks|thank you|hey|hi|hello|edged|okay|right away|quickly|today|tonight)\b"
)


@cache
def _names() -> re.Pattern[str]:
    words = [device.name for device in DEVICES]
    words += [said for device in DEVICES for said in device.said]
    rooms = [*ROOMS, *RARE_ROOMS]
    longest_first = sorted((w.lower() for w in [*words, *rooms]), key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")


def skeleton(prompt: str) -> str:
    """A prompt without its devices, rooms, numbers, punctuation and courtesies.

    Two prompts with one skeleton are the same sentence for this purpose.
    """
    text = _names().sub("x", prompt.lower())
    text = re.sub(r"\d+", "n", text)
    text = _FILLERS.sub(" ", re.sub(r"[^a-z' ]", " ", text))
    return " ".join(text.split())


def _normal(text: str) -> str:
    return " ".join(re.sub(r"[^a-z{}_' ]", " ", text.lower()).split())


@cache
def held_out_patterns() -> tuple[re.Pattern[str], ...]:
    """The held-out sentences with a gap for every slot."""
    patterns = []
    for frame in HELD_OUT:
        gaps = re.sub(r"\\\{\w+\\\}", ".+", re.escape(_normal(frame)))
        patterns.append(re.compile(gaps))
    return tuple(patterns)


def uses_held_out_sentence(prompt: str) -> bool:
    """Whether a held-out sentence occurs anywhere in `prompt`, whatever fills its slots."""
    text = _normal(prompt)
    return any(pattern.search(text) for pattern in held_out_patterns())


def held_out_commands(seed: int = SEED) -> list[dict[str, str]]:
    """The evaluation prompts, each with what an answer must say."""
    rng = random.Random(f"commands {seed}")
    cases = []
    for frame in HELD_OUT:
        for _ in range(PER_HELD_OUT_FRAME):
            request = pick_request(rng)
            text = fill(frame, request, rng)
            text = rng.choice(
                (text, text[:1].upper() + text[1:], text[:1].upper() + text[1:] + ".")
            )
            action = f"set to {request.value}" if request.value else request.action
            cases.append(
                {
                    "prompt": text,
                    "device": request.device.name,
                    "room": request.room,
                    "action": action,
                    "template": frame,
                }
            )
    rng.shuffle(cases)
    return cases


def read_cases(path: Path) -> list[dict[str, str]]:
    """One of the committed evaluation sets."""
    cases: list[dict[str, str]] = json.loads(path.read_text())
    return cases


def conversations(count: int, seed: int = SEED) -> Iterator[Conversation]:
    """`count` training samples, none of which holds an evaluation prompt."""
    rng = random.Random(f"training {seed}")
    banned = {skeleton(case["prompt"]) for case in held_out_commands(seed)}
    banned |= {skeleton(case["prompt"]) for case in read_cases(OFF_TOPIC)}
    made = 0
    while made < count:
        sample = conversation(rng)
        prompts = [user for user, _ in sample.turns]
        if any(skeleton(p) in banned or uses_held_out_sentence(p) for p in prompts):
            continue
        made += 1
        yield sample


def write_training_set(path: Path, count: int, seed: int = SEED) -> int:
    """Write one JSON object a line; returns the bytes written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lines:
        for sample in conversations(count, seed):
            lines.write(json.dumps({"system": sample.system, "turns": sample.turns}) + "\n")
    return path.stat().st_size


def read_training_set(path: Path) -> list[dict[str, Any]]:
    """What `write_training_set` wrote."""
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def write_commands(path: Path = COMMANDS, seed: int = SEED) -> int:
    """Write the held-out commands; returns how many."""
    cases = held_out_commands(seed)
    path.write_text(_pretty(cases))
    return len(cases)


def _pretty(cases: Sequence[dict[str, str]]) -> str:
    """One case a line, so that a difference is readable."""
    return "[\n" + ",\n".join(f"  {json.dumps(case)}" for case in cases) + "\n]\n"
