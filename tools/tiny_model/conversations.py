"""Whole conversations: what a user says and what the model should answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tools.tiny_model.devices import DEVICES, ROOMS
from tools.tiny_model.frames import TRAINING
from tools.tiny_model.lexicon import ACTIONS
from tools.tiny_model.off_topic import off_topic
from tools.tiny_model.phrases import lines
from tools.tiny_model.requests import (
    Request,
    decorate,
    fill,
    pick_request,
    pick_value,
    write_as_people_do,
)
from tools.tiny_model.small_talk import ABOUT, INTENTS

Turn = tuple[str, str]
"""What the user says, and the answer."""


@dataclass(frozen=True)
class Conversation:
    """Turns, and the operator's words before them (empty for none)."""

    system: str
    turns: tuple[Turn, ...]


_HINTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("light", "turn on"): ("dark", "too dark", "very dark", "gloomy", "dim"),
    ("light", "turn off"): ("too bright", "bright", "very bright"),
    ("heater", "turn on"): ("cold", "too cold", "freezing", "chilly", "very cold"),
    ("fan", "turn on"): ("hot", "too hot", "very hot", "warm", "too warm"),
    ("window", "open"): ("stuffy", "smoky", "smelly", "very stuffy"),
    ("vacuum", "start"): ("dusty", "dirty", "very dirty", "full of crumbs"),
    ("radio", "turn down"): ("too loud", "noisy", "loud", "very noisy"),
}
_OPPOSITE = {"turn on": "turn off", "turn off": "turn on", "open": "close", "close": "open",
    "lock": "unlock", "unlock": "lock", "start": "stop", "stop": "start",
}  # fmt: skip


def _command(rng: random.Random) -> Turn:
    request = pick_request(rng, invented_rooms=True)
    return _say(decorate(fill(rng.choice(TRAINING), request, rng), rng), request, rng)


def _say(text: str, request: Request, rng: random.Random) -> Turn:
    prompt = write_as_people_do(text, rng)
    return prompt, request.answer(prompt)


def _without_room(rng: random.Random) -> Turn:
    request = pick_request(rng)
    request = Request(request.device, "", request.action, request.value)
    return _say(decorate(fill(rng.choice(lines("no_room")), request, rng), rng), request, rng)


def _negated(rng: random.Random) -> Turn:
    request = pick_request(rng)
    prompt = write_as_people_do(fill(rng.choice(lines("negated")), request, rng), rng)
    are = "they are" if request.device.plural else "it is"
    return prompt, f"Okay, I am leaving {request.thing} as {are}."


def _status(rng: random.Random) -> Turn:
    request = pick_request(rng)
    prompt = write_as_people_do(fill(rng.choice(lines("status")), request, rng), rng, question=True)
    return prompt, f"I cannot see the state of {request.thing}, but I can control it for you."


def _two_devices(rng: random.Random) -> Turn:
    first = pick_request(rng)
    action = first.action if first.action != "set" else "turn on"
    others = [d for d in DEVICES if action in d.actions and d.name != first.device.name]
    if not others or action not in first.device.actions:
        return _command(rng)
    second = rng.choice(others)
    names = f"the {first.device.name} and the {second.name}"
    verb = rng.choice(ACTIONS[action].verbs)
    place = f"in the {first.room}"
    said = rng.choice(
        (
            f"{names} {place}",
            f"{names} {place}",
            f"the {first.room} {first.device.name} and {second.name}",
        )
    )
    text = rng.choice(
        ("{x}", "{x}", "please {x}", "could you {x}", "I want you to {x}", "in the {r}, {y}")
    )
    text = text.replace("{x}", verb.replace("{d}", said)).replace("{r}", first.room)
    prompt = write_as_people_do(text.replace("{y}", verb.replace("{d}", names)), rng)
    plain = Request(first.device, first.room, action).answer(prompt)
    opening = plain.partition(",")[0]
    return prompt, f"{opening}, I am {ACTIONS[action].answer.replace('{d}', f'{names} {place}')}."


def _hint(rng: random.Random) -> tuple[Turn, Request]:
    (name, action), words = rng.choice(list(_HINTS.items()))
    device = next(d for d in DEVICES if d.name == name)
    room = "" if rng.random() < 0.3 else rng.choice(ROOMS)
    request = Request(device, room, action)
    frame = rng.choice(lines("hint_frames" if room else "hint_frames_no_room"))
    if not room and words[0] in ("cold", "hot") and rng.random() < 0.5:
        frame = rng.choice(("I am {a}", "I'm {a}", "I feel {a}"))
    frame = frame.replace("{a}", rng.choice(words)).replace("{r}", room)
    return (write_as_people_do(frame, rng), f"Shall I {action} {request.thing}?"), request


def _which(rng: random.Random) -> Turn:
    text = rng.choice(lines("which"))
    if rng.random() < 0.5:
        return write_as_people_do(text, rng), "Which device do you mean, and in which room?"
    room = rng.choice(ROOMS)
    prompt = write_as_people_do(f"{text} in the {room}", rng)
    return prompt, f"Which device in the {room} do you mean?"


def _small_talk(rng: random.Random) -> Turn:
    intent = rng.choices(INTENTS, [intent.weight for intent in INTENTS])[0]
    said = rng.choice(intent.said)
    if rng.random() < 0.25:
        said = rng.choice(lines("around_small_talk")).replace("{t}", said)
    question = said.startswith(("w", "how", "are", "can"))
    return write_as_people_do(said, rng, question=question), intent.answer


def _off_topic(rng: random.Random) -> Turn:
    text = off_topic(rng)
    if rng.random() < 0.15:
        text = decorate(text, rng, share=1.0)
    if rng.random() < 0.08:
        text = f"{text}. {off_topic(rng)}"
    question = text.startswith(("w", "h", "is", "do", "can", "are", "should"))
    return write_as_people_do(text, rng, question=question), ABOUT


_SINGLE: tuple[tuple[Callable[[random.Random], Turn], float], ...] = (
    (_command, 54), (_without_room, 4), (_negated, 1.5), (_status, 2), (_two_devices, 3),
    (_which, 1.5), (lambda rng: _hint(rng)[0], 2), (_small_talk, 9), (_off_topic, 19),
)  # fmt: skip


def turn(rng: random.Random) -> Turn:
    """One exchange that stands alone."""
    makers, weights = zip(*_SINGLE, strict=True)
    maker: Callable[[random.Random], Turn] = rng.choices(makers, weights)[0]
    return maker(rng)


def _follow_up(rng: random.Random) -> tuple[Turn, ...]:
    """A second request that leans on the first: the other room, or `now turn it off`."""
    request = pick_request(rng)
    first = _say(decorate(fill(rng.choice(TRAINING), request, rng), rng), request, rng)
    kind = rng.randrange(3)
    if kind == 0:
        other = Request(request.device, rng.choice(ROOMS), request.action, request.value)
        text = rng.choice(lines("same_again")).replace("{r}", other.room)
        return first, _say(text, other, rng)
    others = (
        (_OPPOSITE.get(request.action, request.action),) if kind == 1 else request.device.actions
    )
    action = rng.choice(others)
    value = pick_value(request.device, rng) if action == "set" else ""
    other = Request(request.device, request.room, action, value)
    return first, _say(fill(rng.choice(lines("pronoun")), other, rng), other, rng)


def _accepted_hint(rng: random.Random) -> tuple[Turn, ...]:
    first, request = _hint(rng)
    return first, _say(rng.choice(lines("yes")), request, rng)


def conversation(rng: random.Random) -> Conversation:
    """One training sample; a few are as long as the context, so that late positions are learned."""
    system = rng.choice(lines("system")) if rng.random() < 0.2 else ""
    if system and rng.random() < 0.2:
        system = f"{system} {rng.choice(lines('system'))}"
    roll = rng.random()
    if roll < 0.78:
        turns: tuple[Turn, ...] = (turn(rng),)
    elif roll < 0.86:
        turns = _follow_up(rng)
    elif roll < 0.875:
        turns = _accepted_hint(rng)
    elif roll < 0.995:
        turns = tuple(turn(rng) for _ in range(rng.randint(2, 3)))
    else:
        turns = tuple(turn(rng) for _ in range(rng.randint(8, 24)))
    return Conversation(system, turns)
