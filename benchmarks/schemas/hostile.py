"""What must be refused: schemas by the daemon, and grammars by the worker, should it get any."""

from collections.abc import Mapping
from typing import Any


def _nested(depth: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def _chain(length: int, step: Any) -> dict[str, Any]:
    """``step`` makes a definition from a reference to the next one; the last one is null."""
    definitions = {f"d{at}": step({"$ref": f"#/$defs/d{at + 1}"}) for at in range(length)}
    return {"$defs": {**definitions, f"d{length}": {"type": "null"}}, "$ref": "#/$defs/d0"}


def _arrays(inside: Any) -> dict[str, Any]:
    arrays = [{"type": "array", "items": inside, "minItems": least} for least in range(4)]
    return {"anyOf": arrays}


def _required(inside: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"next": inside}, "required": ["next"]}


SCHEMAS: Mapping[str, Any] = {
    "maxLength 20,000": {"type": "string", "maxLength": 20_000},
    "minItems 20,000": {"type": "array", "items": {"type": "null"}, "minItems": 20_000},
    "nested 10,000 deep": _nested(10_000),
    "a reference to itself": {"$ref": "#"},
    "references in a circle": {
        "$defs": {f"d{at}": {"$ref": f"#/$defs/d{(at + 1) % 100}"} for at in range(100)},
        "$ref": "#/$defs/d0",
    },
    "an object that needs itself": _required({"$ref": "#"}),
    "a list that needs itself": {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    "definitions that multiply by 4, 40 times": _chain(40, _arrays),
    "1,000 definitions in a row": _chain(1000, _required),
    "an enum of 100,000": {"enum": [*range(100_000)]},
    "200 kB of properties": {
        "properties": {f"property_{number}": {"type": "string"} for number in range(5000)}
    },
    "200 properties of 2,000 characters": {
        "properties": {
            f"p{number}": {"type": "string", "maxLength": 2000 - number} for number in range(200)
        }
    },
    "400 optional properties": {"properties": {f"p{number}": True for number in range(400)}},
}

GRAMMARS: Mapping[str, str] = {
    "a rule that is missing": "root ::= missing",
    "left recursion": 'root ::= root "a"',
    "readings that multiply by 3": 'root ::= "a" root | "a" root "b" | "a" root "c"',
    "a left corner of 2^40": "\n".join(
        (
            "root ::= r0",
            *(f'r{at} ::= r{at + 1} | r{at + 1} "x"' for at in range(40)),
            'r40 ::= "y"',
        )
    ),
    "a repetition of 1,000,000": 'root ::= (("a"{1,100}){1,100}){1,100}',
}
