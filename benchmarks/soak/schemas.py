"""A few JSON schemas, and for each a check of its own that an answer holds to it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

ROOMS = ["kitchen", "hall", "bathroom"]
MANY_ROOMS = [*ROOMS, "bedroom", "office", "garage", "attic", "dining room", "cellar", "porch"]
NEW_SHARE = 0.2
"""Of the schemas; each new one is compiled in a process of its own, which takes half a second."""


@dataclass(frozen=True)
class Schema:
    """``is_right`` is asked of the parsed answer."""

    schema: dict[str, Any]
    is_right: Callable[[Any], bool]

    def holds(self, text: str) -> bool:
        """Whether the text is JSON that the schema allows."""
        try:
            return self.is_right(json.loads(text))
        except json.JSONDecodeError:
            return False


def is_json_object(text: str) -> bool:
    """Whether the text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_command(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"room", "on", "percent"}
        and {"room", "on"} <= set(value)
        and value["room"] in ROOMS
        and isinstance(value["on"], bool)
        and ("percent" not in value or _is_integer(value["percent"]))
    )


def _is_list_of_rooms(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 4 and all(each in ROOMS for each in value)


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name"}
        and isinstance(value["name"], str)
        and 2 <= len(value["name"]) <= 12
    )


def _is_reading(value: Any) -> bool:
    return value is None or value == "unknown" or _is_integer(value)


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 3 and all(map(_is_name, value))


_NAME = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 2, "maxLength": 12}},
    "required": ["name"],
    "additionalProperties": False,
}

_KNOWN = (
    Schema(
        {
            "type": "object",
            "properties": {
                "room": {"enum": ROOMS},
                "on": {"type": "boolean"},
                "percent": {"type": "integer"},
            },
            "required": ["room", "on"],
            "additionalProperties": False,
        },
        _is_command,
    ),
    Schema(
        {"type": "array", "items": {"enum": ROOMS}, "minItems": 1, "maxItems": 4},
        _is_list_of_rooms,
    ),
    Schema(_NAME, _is_name),
    Schema({"anyOf": [{"type": "integer"}, {"type": "null"}, {"const": "unknown"}]}, _is_reading),
    Schema(
        {
            "type": "array",
            "items": {"$ref": "#/$defs/named"},
            "maxItems": 3,
            "$defs": {"named": _NAME},
        },
        _is_list_of_names,
    ),
)


def any_schema(random: Random) -> Schema:
    """One of a few, or one of a thousand, so that now and then one comes for the first time."""
    if random.random() > NEW_SHARE:
        return random.choice(_KNOWN)
    rooms = random.sample(MANY_ROOMS, random.randint(1, len(MANY_ROOMS)))
    schema = {"enum": sorted(rooms)}
    return Schema(schema, lambda value: value in rooms)
