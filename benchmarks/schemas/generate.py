"""Random JSON schemas of the keywords that edged keeps, each of which some value satisfies."""

import random
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any] | bool

NAMES = (
    *("name", "room", "device", "state", "count", "items", "level", "on", "mode", "unit", "note"),
    *("größe", "with space", 'with"quote', "a/b", "~", "", "命令", "🌍", "back\\slash", "a\nb"),
)
TEXTS = (
    *("on", "off", "light", "kitchen", "living room", "21 °C", "", "a", "ab", 'say "hi"', "naïve"),
    *("C:\\temp", "line\nbreak", "日本", "🌡", "\u07ff", "\x7f"),
)
SCALARS = ("null", "boolean", "integer", "number", "string")
ANNOTATIONS: Mapping[str, Any] = {
    "title": "A title",
    "description": "What it is for",
    "default": None,
    "examples": [1, "two"],
    "$comment": "none",
}


class Generator:
    """Draws schemas; the same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._definitions: list[str] = []

    def schema(self) -> Schema:
        """One schema, with definitions that may refer to each other, to themselves and to it."""
        keyword = self._random.choice(("$defs", "definitions"))
        names = [f"d{at}" for at in range(self._random.choice((0, 0, 1, 2, 3)))]
        self._definitions = [f"#/{keyword}/{name}" for name in names]
        definitions = {name: self._definition() for name in names}
        root = self._any(3)
        if isinstance(root, bool):
            return root
        return {**root, keyword: definitions} if definitions else root

    def _definition(self) -> Schema:
        kind = self._random.choice((self._object, self._object, self._array, self._scalar))
        return kind(2)

    def _any(self, depth: int) -> Schema:
        """Any schema; ``depth`` containers may still be inside each other."""
        kinds = [self._scalar, self._choice, self._types, self._anything]
        if depth:
            kinds += [self._object, self._object, self._array, self._any_of]
        drawn = self._random.choice(kinds)(depth)
        if isinstance(drawn, dict) and self._random.random() < 0.2:
            name = self._random.choice([*ANNOTATIONS])
            drawn = {name: ANNOTATIONS[name], **drawn}
        return drawn

    def _inside(self, depth: int) -> Schema:
        """What a place holds that may be left empty, so that a reference may lead back."""
        if self._random.random() < 0.3:
            return {"$ref": self._random.choice(["#", *self._definitions])}
        return self._any(depth)

    def _scalar(self, _depth: int) -> Schema:
        kind = self._random.choice(SCALARS)
        return {"type": kind, **(self._lengths() if kind == "string" else {})}

    def _types(self, _depth: int) -> Schema:
        kinds = self._random.sample(SCALARS, self._random.randint(1, 3))
        return {"type": kinds, **(self._lengths() if "string" in kinds else {})}

    def _anything(self, _depth: int) -> Schema:
        return self._random.choice((True, {}, {"type": "object"}, {"type": "array"}))

    def _lengths(self) -> dict[str, int]:
        return self._bounds("minLength", "maxLength", 30)

    def _bounds(self, least: str, most: str, limit: int) -> dict[str, int]:
        low = self._random.randint(0, limit // 4)
        high = low + self._random.randint(0, limit)
        chosen = {least: low, most: high}
        return {name: chosen[name] for name in chosen if self._random.random() < 0.6}

    def _choice(self, _depth: int) -> Schema:
        values = [self._value(2) for _ in range(self._random.randint(1, 6))]
        if self._random.random() < 0.4:
            return {"const": values[0]}
        if self._random.random() < 0.5:
            return {"enum": values}
        if self._random.random() < 0.3:
            return {"type": ["string", "null"], "enum": [*values, None]}
        texts = self._random.sample(TEXTS, self._random.randint(1, 8))
        return {"type": "string", "enum": texts}

    def _value(self, depth: int) -> Any:
        draw = self._random.random()
        if depth and draw < 0.1:
            return [self._value(depth - 1) for _ in range(self._random.randint(0, 2))]
        if depth and draw < 0.2:
            return {name: self._value(depth - 1) for name in self._random.sample(NAMES, 2)}
        return self._random.choice(
            (*TEXTS, None, True, False, 0, 1, -7, 1.0, 2.5, -0.0, 1e22, 2**53, 12, 123)
        )

    def _object(self, depth: int) -> Schema:
        names = self._random.sample(NAMES, self._random.randint(0, 5))
        required = [name for name in names if self._random.random() < 0.5]
        properties: dict[str, Schema] = {}
        for name in names:
            if name in required:
                properties[name] = self._any(depth - 1)
            else:
                properties[name] = self._inside(depth - 1)
        drawn: dict[str, Any] = {"type": "object"} if self._random.random() < 0.9 else {}
        drawn["properties"] = properties
        if required:
            drawn["required"] = required
        more = self._random.choice((None, None, False, True, "schema"))
        if more == "schema":
            drawn["additionalProperties"] = self._inside(depth - 1)
        elif more is not None:
            drawn["additionalProperties"] = more
        if more in (None, True) and self._random.random() < 0.1:
            drawn.setdefault("required", []).append("undeclared")
        if not properties and self._random.random() < 0.5:
            del drawn["properties"]
        return drawn

    def _array(self, depth: int) -> Schema:
        drawn: dict[str, Any] = {"type": "array", **self._bounds("minItems", "maxItems", 5)}
        empty = not drawn.get("minItems")
        drawn["items"] = self._inside(depth - 1) if empty else self._any(depth - 1)
        return drawn

    def _any_of(self, depth: int) -> Schema:
        alternatives = [self._any(depth - 1) for _ in range(self._random.randint(1, 4))]
        if self._definitions and self._random.random() < 0.4:
            reference = {"$ref": self._random.choice(self._definitions)}
            alternatives += [reference, {"type": "null"}]
        return {"anyOf": alternatives}
