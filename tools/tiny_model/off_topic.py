"""Everything else that people say: composed questions, orders that are no home control, noise."""

from __future__ import annotations

import random
from collections.abc import Callable
from string import ascii_lowercase

from tools.tiny_model.devices import DEVICES, ROOMS
from tools.tiny_model.phrases import lines, words

# In these lists `{n}` is a noun, `{m}` a noun in the plural, `{s}` a subject, `{p}` a place, `{w}`
# a person, `{a}` an adjective, `{v}` a verb, `{x}` `{y}` numbers, `{h}` a device, `{r}` a room.
_LISTS = ("questions", "orders", "statements", "home", "code", "sentences", "")
_SHARES = (30, 28, 13, 12, 3, 7, 10)


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def made_up(rng: random.Random) -> str:
    """A word that could exist, or letters as a cat types them."""
    if rng.random() < 0.4:
        return "".join(rng.choice(ascii_lowercase) for _ in range(rng.randint(2, 9)))
    syllables = (
        rng.choice(("b", "bl", "d", "f", "fl", "g", "gr", "k", "l", "m", "p", "qu", "s", "sn", "t"))
        + rng.choice("aeiou")
        + rng.choice(("", "n", "r", "zz", "mp", "x", "ng", "lt", "b"))
        for _ in range(rng.randint(1, 3))
    )
    return "".join(syllables)


def _number(rng: random.Random) -> str:
    return str(rng.choice((rng.randint(0, 20), rng.randint(0, 999), rng.randint(1000, 2050))))


def _fill(frame: str, rng: random.Random) -> str:
    makers: dict[str, Callable[[], str]] = {
        "m": lambda: _plural(rng.choice(words("nouns"))),
        "s": lambda: rng.choice(lines("subjects")),
        "p": lambda: rng.choice(lines("places")),
        "w": lambda: rng.choice(words("people")),
        "a": lambda: rng.choice(words("adjectives")),
        "v": lambda: rng.choice(words("verbs")),
        "n": lambda: made_up(rng) if rng.random() < 0.06 else rng.choice(words("nouns")),
        "x": lambda: _number(rng),
        "y": lambda: _number(rng),
        "h": lambda: rng.choice(DEVICES).name,
        "r": lambda: rng.choice(ROOMS),
    }
    # One slot at a time, so that `a {n} and a {n}` names two things.
    for slot, make in makers.items():
        while "{" + slot + "}" in frame:
            frame = frame.replace("{" + slot + "}", make(), 1)
    return frame


def _noise(rng: random.Random) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        return " ".join(made_up(rng) for _ in range(rng.randint(1, 6)))
    if kind == 1:
        pools = (
            words("nouns"),
            words("verbs"),
            words("adjectives"),
            words("people"),
            lines("places"),
            lines("subjects"),
            words("names"),
        )
        return " ".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 9)))
    if kind == 2:
        return "".join(
            rng.choice("0123456789+-*/=?!.,#$%&()<>@ ") for _ in range(rng.randint(1, 16))
        )
    if kind == 3:
        return f"{rng.choice(words('names'))} {rng.choice(words('verbs'))} {made_up(rng)}"
    return rng.choice(lines("foreign"))


def off_topic(rng: random.Random) -> str:
    """One prompt that is none of edged's business, in plain lower case where it is composed."""
    name = rng.choices(_LISTS, _SHARES)[0]
    return _fill(rng.choice(lines(name)), rng) if name else _noise(rng)


def remark(rng: random.Random) -> str:
    """A statement that asks for nothing, to put beside a request."""
    return _fill(rng.choice(lines("statements")), rng)
