"""From ``response_format`` to the grammar that holds an answer to it.

Bounded at every step, since the schema is a stranger's, and grammars can end llama.cpp's process.
What a schema says is kept exactly, or refused by the name of the keyword. An answer may be less
than the schema allows, never more: where properties are named, there are no others.
"""

from collections.abc import Mapping
from typing import Any, Final

from edged.engine.json_grammar import grammar_text
from edged.engine.json_reader import Reader
from edged.engine.json_shapes import Array, Shape, Text, fillable
from edged.engine.json_source import check_size, refusal, shown
from edged.engine.json_unrolled import readable

MAX_REPETITIONS: Final = 10_000
"""All lengths and counts together: llama.cpp unrolls each into a rule."""
MAX_GRAMMAR_CHARACTERS: Final = 131_072

_FIELDS: Final = {"json_object": {"type"}, "json_schema": {"type", "schema"}}


def grammar_of(response_format: Mapping[str, Any]) -> str:
    """The grammar (GBNF) of the answers that ``response_format`` allows.

    Raises ``InvalidRequest`` for what is not supported, exceeds a limit, or allows no answer.
    """
    kind = str(response_format.get("type"))
    if kind not in _FIELDS:
        raise refusal(f"type is {shown(kind)}, and must be one of {', '.join(_FIELDS)}")
    for field in response_format:
        if field not in _FIELDS[kind]:
            raise refusal(f"{shown(field)} is no field of {kind}")
    if kind == "json_object":
        return _grammar({"type": "object"})
    if "schema" not in response_format:
        raise refusal("json_schema needs a schema")
    return _grammar(response_format["schema"])


def _grammar(schema: Any) -> str:
    check_size(schema)
    reader = Reader(schema)
    places = fillable(reader.read())
    if not places[0]:
        raise reader.contradiction()
    repetitions = sum(map(_repetitions, {shape for shapes in places for shape in shapes}))
    if repetitions > MAX_REPETITIONS:
        raise refusal(
            f"its lengths and counts add up to {repetitions}, and {MAX_REPETITIONS} are allowed",
            given=repetitions,
            limit=MAX_REPETITIONS,
        )
    grammar = grammar_text(readable(places, reader.where))
    if len(grammar) > MAX_GRAMMAR_CHARACTERS:
        raise refusal(
            f"its grammar has {len(grammar)} characters, and {MAX_GRAMMAR_CHARACTERS} are allowed",
            given=len(grammar),
            limit=MAX_GRAMMAR_CHARACTERS,
        )
    return grammar


def _repetitions(shape: Shape) -> int:
    return max(shape.least, shape.most or 0) if isinstance(shape, Text | Array) else 0
