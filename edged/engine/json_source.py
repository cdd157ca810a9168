"""A stranger's JSON schema as it comes: where one is in it, and what its keywords may hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from edged.errors import DetailValue, InvalidRequest

MAX_CHARACTERS: Final = 16_384
"""Of names, strings and long numbers, and one for each value.

The daemon reads a schema between two messages: 20 ms at the most, on a PC.
"""
MAX_DEPTH: Final = 64
"""Of the schema as JSON. An object in an object takes two levels."""
MAX_LENGTH: Final = 2000
"""For ``maxLength`` and its like. llama.cpp unrolls a repetition; beyond this it refuses the lower
bound and forgets the upper one (MAX_REPETITION_THRESHOLD of src/llama-grammar.cpp)."""

TYPES: Final = {
    "null": frozenset({"null"}),
    "boolean": frozenset({"boolean"}),
    "object": frozenset({"object"}),
    "array": frozenset({"array"}),
    "string": frozenset({"string"}),
    "integer": frozenset({"integer"}),
    "number": frozenset({"integer", "fraction"}),
}
"""What the types of JSON Schema stand for; an integer is a number, too."""
OF_ONE_TYPE: Final = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "minItems": "array",
    "maxItems": "array",
    "minLength": "string",
    "maxLength": "string",
}
"""Keywords that say nothing of values of other types."""
SILENT: Final = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$defs", "definitions"),
    }
)
"""Keywords that say nothing of values."""
_KNOWN: Final = SILENT | {"type", "enum", "const", "anyOf", "$ref", *OF_ONE_TYPE}
_SHOWN_CHARACTERS: Final = 200


@dataclass(frozen=True)
class Where:
    """A place in the schema, as the way to it."""

    parent: "Where | None" = None
    name: str = ""

    def __truediv__(self, name: str) -> "Where":
        return Where(self, name)

    def __str__(self) -> str:
        names = []
        here: Where | None = self
        while here is not None and here.parent is not None:
            names.append(here.name.replace("~", "~0").replace("/", "~1"))
            here = here.parent
        return "/".join(("#", *reversed(names)))


ROOT: Final = Where()


def refusal(sentence: str, where: Where = ROOT, **details: DetailValue) -> InvalidRequest:
    """The answer to a schema that cannot be kept; ``details`` are its numbers."""
    pointer = shown(str(where))
    return InvalidRequest(
        f"response_format: {sentence} (at {pointer})",
        details={"field": "response_format", "at": pointer, **details},
    )


def shown(text: str) -> str:
    """A stranger's text, fit for one line of a message."""
    text = repr(text[: _SHOWN_CHARACTERS + 1])[1:-1]  # which may be ten times as long
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def check_size(schema: Any) -> None:
    """Refuse what would take long to read, without recursion."""
    characters = 0
    todo = [(schema, 1)]
    while todo:
        value, depth = todo.pop()
        characters += 1
        if isinstance(value, str | list | dict):
            characters += len(value)
        elif isinstance(value, int):
            characters += value.bit_length() // 3  # some more than its digits
        if isinstance(value, dict) and characters <= MAX_CHARACTERS:
            characters += sum(map(len, value))
        if characters > MAX_CHARACTERS:
            raise refusal(
                f"the schema has more than {MAX_CHARACTERS} characters in its names and strings, "
                "with one for each value",
                limit=MAX_CHARACTERS,
            )
        if isinstance(value, list | dict):
            if depth > MAX_DEPTH:
                raise refusal(f"the schema is nested more than {MAX_DEPTH} deep", limit=MAX_DEPTH)
            inside = value.values() if isinstance(value, dict) else value
            todo += [(each, depth + 1) for each in inside]


def check_keywords(schema: Any, where: Where) -> None:
    """Refuse what is no schema, and keywords that are not kept."""
    if not isinstance(schema, dict):
        raise refusal("a schema is an object or a bool", where)
    for keyword in schema:
        if keyword not in _KNOWN:
            raise refusal(
                f"the keyword {shown(keyword)} is not supported", where, keyword=shown(keyword)
            )
    if "$id" in schema and where != ROOT:
        raise refusal("the keyword $id is supported at the root only", where, keyword="$id")


def declared_types(schema: Mapping[str, Any], where: Where) -> frozenset[str]:
    """What ``type`` says."""
    declared = schema["type"]
    names = declared if isinstance(declared, list) else [declared]
    if not names or any(not isinstance(name, str) or name not in TYPES for name in names):
        raise refusal(f"type must be of {', '.join(TYPES)}, or a list of them", where)
    return frozenset[str]().union(*(TYPES[name] for name in names))


def bounds(
    schema: Mapping[str, Any], least: str, most: str, where: Where
) -> tuple[int, int | None]:
    """A lower and an upper bound of a length or count."""
    for keyword in {least, most} & schema.keys():
        value = schema[keyword]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise refusal(f"{keyword} must be a whole number from 0", where)
        if value > MAX_LENGTH:
            raise refusal(
                f"{keyword} is above {MAX_LENGTH}",
                where,
                keyword=keyword,
                given=min(value, 2**53),
                limit=MAX_LENGTH,
            )
    return schema.get(least, 0), schema.get(most)


def some_values(schema: Mapping[str, Any], keyword: str, where: Where) -> list[Any]:
    """What a keyword lists."""
    value = schema[keyword]
    if not isinstance(value, list) or not value:
        raise refusal(f"{keyword} must be a list with something in it", where)
    return value


def names(schema: Mapping[str, Any], where: Where) -> tuple[dict[str, Any], list[str]]:
    """An object's ``properties``, and the names that are ``required``."""
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict):
        raise refusal("properties must be an object", where)
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise refusal("required must be a list of strings", where)
    return properties, required


def resolve(root: Any, reference: Any, where: Where) -> tuple[Any, Where]:
    """The schema that a ``$ref`` means, and where that is."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise refusal(f"$ref must be # or begin with #/, and is {shown(repr(reference))}", where)
    value, pointer = root, ROOT
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if (
            isinstance(value, list)
            and name.isascii()
            and name.isdecimal()
            and int(name[:9]) < len(value)
        ):
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            raise refusal(f"$ref {shown(reference)} leads nowhere", where)
        pointer = pointer / name
        if isinstance(value, dict) and isinstance(value.get("$id"), str):
            raise refusal("the keyword $id is supported at the root only", pointer, keyword="$id")
    return value, pointer
