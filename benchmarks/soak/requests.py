"""What the soak's clients may ask, drawn from a seeded generator, and how that may end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from benchmarks.soak.schemas import any_schema, is_json_object

SYSTEM_PROMPT = "You are the voice of a house by the sea. Answer in one sentence."
CTX = 512
SLOTS = 4
TEMPERATURE_LIMIT = 100.0
"""At so high a temperature every token is about as likely as any other, so the end of an answer
comes late: the bundled model's own answers last some 20 ms, too short to be cancelled."""

ANSWERED = frozenset({"stop", "length"})

_VERBS = ("turn on", "turn off", "switch on", "dim", "close", "open", "check")
_ROOMS = ("kitchen", "hall", "bathroom", "bedroom", "office", "garage", "attic", "dining room")
_DEVICES = ("lamp", "fan", "heater", "blind", "radio", "thermostat", "ceiling light", "door")
_QUESTIONS = ("What can you do?", "Who are you?", "Good morning.", "What is the capital of Peru?")
_STOPS = ((".",), ("kitchen", " the"), (",", "\n"), ("I am", "lamp", "on"))

LONG_COMMANDS = (28, 56)
"""So many commands fill from half of the context to nearly all of it."""
TOO_MANY_COMMANDS = (70, 200)

_INVALID: tuple[dict[str, Any], ...] = (
    {},
    {"prompt": "  "},
    {"prompt": "Hello", "temprature": 0},
    {"prompt": "Hello", "max_tokens": 0},
    {"prompt": "Hello", "max_tokens": "many"},
    {"prompt": "Hello", "temperature": TEMPERATURE_LIMIT + 1},
    {"prompt": "Hello", "stop": [""]},
    {"prompt": "Hello", "messages": [{"role": "user", "content": "Hello"}]},
    {"messages": [{"role": "assistant", "content": "Hello"}]},
    {"messages": [{"role": "robot", "content": "Hello"}]},
)


def anything(_text: str) -> bool:
    """What is asked of an answer of which nothing is asked."""
    return True


@dataclass(frozen=True)
class Request:
    """A prompt's body, still without an id.

    ``ends`` are the finish reasons and failure codes that it may end in; ``is_right`` is asked of
    a text that ended with ``stop``.
    """

    kind: str
    body: dict[str, Any]
    ends: frozenset[str] = ANSWERED
    is_right: Callable[[str], bool] = anything

    def but(self, *ends: str, **fields: Any) -> "Request":
        """The same with other fields, which may also end in ``ends``."""
        return replace(self, body=self.body | fields, ends=self.ends | set(ends))


def makers(*, schemas: bool) -> dict[Callable[[Random], Request], int]:
    """What makes each kind, and how often it is to come; most are short."""
    kinds: dict[Callable[[Random], Request], int] = {
        short: 6,
        long: 4,
        stopped: 2,
        rambling: 3,
        too_long: 2,
        invalid: 2,
    }
    return kinds | {json_object: 2, json_schema: 4} if schemas else kinds


def short(random: Random) -> Request:
    """One command or question."""
    text = random.choice(_QUESTIONS) if random.random() < 0.2 else _command(random)
    return Request("short", {"prompt": text, **_manner(random)})


def long(random: Random) -> Request:
    """A prompt that leaves little of the context."""
    text = _commands(random, random.randint(*LONG_COMMANDS))
    return Request("long", {"prompt": text, **_manner(random)})


def stopped(random: Random) -> Request:
    """With stop sequences, none of which may be in the answer."""
    stops = random.choice(_STOPS)

    def has_none(text: str) -> bool:
        return not any(stop in text for stop in stops)

    body = {"prompt": _command(random), "stop": list(stops), **_manner(random)}
    return Request("stop sequence", body, is_right=has_none)


def rambling(random: Random) -> Request:
    """A long answer of random words, up to the context's end."""
    body = {"prompt": _command(random), "temperature": TEMPERATURE_LIMIT, "max_tokens": CTX}
    body |= {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": random.getrandbits(32)}
    return Request("long answer", body)


def too_long(random: Random) -> Request:
    """Does not fit the context."""
    body = {"prompt": _commands(random, random.randint(*TOO_MANY_COMMANDS))}
    return Request("too long", body, frozenset({"prompt_too_long"}))


def invalid(random: Random) -> Request:
    """Is refused by name of the field."""
    return Request("invalid", dict(random.choice(_INVALID)), frozenset({"invalid_request"}))


def json_object(random: Random) -> Request:
    """Any JSON object."""
    body = {"prompt": _command(random), "response_format": {"type": "json_object"}}
    return Request("JSON object", body | _manner(random), is_right=is_json_object)


def json_schema(random: Random) -> Request:
    """JSON by one of a few schemas."""
    schema = any_schema(random)
    how = {"type": "json_schema", "schema": schema.schema}
    body = {"prompt": _command(random), "response_format": how, **_manner(random)}
    return Request("JSON schema", body, is_right=schema.holds)


def conversation(random: Random, before: list[dict[str, str]]) -> Request:
    """The next turn after the messages ``before``, which the request repeats."""
    messages = [*before, {"role": "user", "content": _command(random)}]
    return Request("conversation", {"messages": messages, "temperature": 0, "max_tokens": 40})


def _command(random: Random) -> str:
    verb, room, device = (random.choice(each) for each in (_VERBS, _ROOMS, _DEVICES))
    return f"{verb.capitalize()} the {room} {device}, please."


def _commands(random: Random, count: int) -> str:
    return " ".join(_command(random) for _ in range(count))


def _manner(random: Random) -> dict[str, Any]:
    """How to answer: what any request may carry."""
    manner: dict[str, Any] = {"temperature": random.choice((0, 0.8))}
    if random.random() < 0.5:
        manner["max_tokens"] = random.choice((1, 4, 16, 64, CTX))
    if random.random() < 0.2:
        manner["stream"] = False
    if random.random() < 0.2:
        manner["chunk"] = "sentence"
    if random.random() < 0.2:
        manner["priority"] = random.randint(0, 9)
    return manner
