"""What a schema says is refused by name where it is not kept, and within limits always."""

import json
from typing import Any

import pytest

from edged.engine.json_reader import MAX_COMPARISONS, MAX_PLACES, MAX_VALUES
from edged.engine.json_schema import MAX_REPETITIONS, grammar_of
from edged.engine.json_source import MAX_CHARACTERS, MAX_DEPTH, MAX_LENGTH
from edged.engine.json_unrolled import MAX_STACKS
from edged.errors import InvalidRequest

STRING, NULL = {"type": "string"}, {"type": "null"}


def refused(schema: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        grammar_of({"type": "json_schema", "schema": schema})
    assert caught.value.details["field"] == "response_format"
    assert caught.value.error.startswith("response_format: ")
    json.dumps(caught.value.details)
    return caught.value


def an_object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required]}


@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("pattern", {"type": "string", "pattern": "^a$"}),
        ("format", {"type": "string", "format": "date"}),
        ("minimum", {"type": "integer", "minimum": 0}),
        ("multipleOf", {"type": "number", "multipleOf": 2}),
        ("uniqueItems", {"type": "array", "uniqueItems": True}),
        ("prefixItems", {"prefixItems": []}),
        ("contains", {"contains": {}}),
        ("patternProperties", {"patternProperties": {}}),
        ("propertyNames", {"propertyNames": {}}),
        ("minProperties", {"minProperties": 1}),
        ("dependentRequired", {"dependentRequired": {}}),
        ("oneOf", {"oneOf": [{}]}),
        ("allOf", {"allOf": [{}]}),
        ("not", {"not": {}}),
        ("if", {"if": {}}),
        ("$dynamicRef", {"$dynamicRef": "#x"}),
        ("unevaluatedProperties", {"unevaluatedProperties": False}),
        ("typ", {"typ": "string"}),
    ],
)
def test_a_keyword_that_is_not_kept_is_refused_by_name_and_place(keyword: str, schema: Any) -> None:
    refusal = refused(an_object(**{"a/b": {"type": "array", "items": schema}}))

    assert f"keyword {keyword} is not supported" in refusal.error
    assert refusal.details["keyword"] == keyword
    assert refusal.details["at"] == "#/properties/a~1b/items"


@pytest.mark.parametrize(
    ("whole", "keyword", "schema"),
    [
        ("$ref", "minLength", {"$ref": "#/$defs/a", "minLength": 2, "$defs": {"a": STRING}}),
        ("anyOf", "properties", {"anyOf": [{}], "properties": {}}),
        ("anyOf", "enum", {"anyOf": [{}], "enum": [1]}),
        ("enum and const", "properties", {"enum": [{}], "properties": {}}),
        ("enum and const", "items", {"const": [1], "items": NULL}),
    ],
)
def test_keywords_that_would_have_to_hold_together_are_refused(
    whole: str, keyword: str, schema: Any
) -> None:
    assert f"{keyword} beside {whole} is not supported" in refused(schema).error


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ("minLength 3 is above maxLength 2", {"type": "string", "minLength": 3, "maxLength": 2}),
        ("minItems 3 is above maxItems 2", {"type": "array", "minItems": 3, "maxItems": 2}),
        ("b is required", {**an_object("b", a=NULL), "additionalProperties": False}),
        ("of enum and const nothing is left", {"type": "string", "enum": [1, None]}),
        ("of enum and const nothing is left", {"const": 1, "enum": [True, "1"]}),
        ("false allows none", False),
        ("false allows none", an_object("a", a=False)),
        ("leads back to itself", an_object("a", a={"$ref": "#"})),
        ("leads back to itself", {"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
        ("no object and no array in between", {"$ref": "#"}),
        ("no object and no array in between", {"anyOf": [NULL, {"$ref": "#"}]}),
        (
            "no object and no array in between",
            {
                "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
                "$ref": "#/$defs/a",
            },
        ),
    ],
)
def test_a_schema_that_no_value_satisfies_is_refused_with_the_reason(
    words: str, schema: Any
) -> None:
    assert words in refused(schema).error


@pytest.mark.parametrize(
    "schema",
    [
        5,
        None,
        [],
        {"type": "str"},
        {"type": []},
        {"type": [1]},
        {"enum": []},
        {"enum": "a"},
        {"anyOf": []},
        {"anyOf": {}},
        {"anyOf": [3]},
        {"properties": []},
        {"properties": {"a": 3}},
        {"required": "a"},
        {"required": [1]},
        {"items": [{}]},
        {"minLength": -1},
        {"minLength": 1.5},
        {"maxLength": True},
        {"maxItems": "2"},
        {"$ref": 3},
        {"$ref": "#/$defs/missing"},
        {"$ref": "other.json"},
        {"$ref": "#anchor"},
        {"anyOf": [{}], "$ref": "#/anyOf/1"},
        {"properties": {"a": {"$id": "x", "type": "null"}}},
        {"$defs": {"a": {"$id": "x", "$defs": {"b": {}}}}, "$ref": "#/$defs/a/$defs/b"},
        {"enum": [float("inf")]},
        {"enum": [[float("nan")]]},
    ],
    ids=str,
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    refused(schema)


@pytest.mark.parametrize(
    ("words", "response_format"),
    [
        ("type is None", {}),
        ("type is text", {"type": "text"}),
        ("json_schema needs a schema", {"type": "json_schema"}),
        ("schema is no field of json_object", {"type": "json_object", "schema": {}}),
        (
            "strict is no field of json_schema",
            {"type": "json_schema", "schema": {}, "strict": True},
        ),
    ],
)
def test_a_form_that_is_unknown_is_refused(words: str, response_format: Any) -> None:
    with pytest.raises(InvalidRequest, match=words):
        grammar_of(response_format)


def nested(depth: int) -> Any:
    schema: Any = NULL
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def all_required(count: int) -> Any:
    properties = numbered(count, NULL)
    return an_object(*properties, **properties)


def numbered(count: int, schema: Any) -> dict[str, Any]:
    return {f"p{number}": dict(schema) for number in range(count)}


@pytest.mark.parametrize(
    ("limit", "schema"),
    [
        (MAX_LENGTH, {"type": "string", "maxLength": 20_000}),
        (MAX_LENGTH, {"type": "string", "minLength": MAX_LENGTH + 1}),
        (MAX_LENGTH, {"type": "array", "items": NULL, "maxItems": 10**30}),
        (MAX_DEPTH, nested(10_000)),
        (MAX_DEPTH, {"const": json.loads("[" * 900 + "]" * 900)}),
        (MAX_CHARACTERS, an_object(**numbered(10_000, STRING))),
        (MAX_CHARACTERS, {"enum": [*range(100_000)]}),
        (MAX_CHARACTERS, {"const": "x" * 200_000}),
        (MAX_CHARACTERS, {"description": "x" * 200_000}),
        (MAX_VALUES, {"enum": [*range(MAX_VALUES + 1)]}),
        (MAX_PLACES, all_required(MAX_PLACES)),
        (MAX_STACKS, an_object(**numbered(MAX_STACKS, {}))),
        (MAX_COMPARISONS, {"anyOf": [an_object(a={"const": n}) for n in range(72)]}),
        (
            MAX_REPETITIONS,
            {"anyOf": [{"type": "string", "maxLength": MAX_LENGTH - n} for n in range(6)]},
        ),
    ],
)
def test_what_exceeds_a_limit_is_refused_with_the_limit(limit: int, schema: Any) -> None:
    assert refused(schema).details["limit"] == limit


def test_readings_that_double_at_each_level_are_refused() -> None:
    either = [
        {"type": "array", "items": {"$ref": "#/$defs/d{}"}, "minItems": least} for least in (0, 1)
    ]
    doubling = {
        f"d{at}": json.loads(json.dumps({"anyOf": either}).replace("{}", str(at + 1)))
        for at in range(30)
    }

    assert (
        "more than 256 ways"
        in refused({"$defs": {**doubling, "d30": NULL}, "$ref": "#/$defs/d0"}).error
    )


def test_names_of_a_stranger_are_shown_harmless_and_cut() -> None:
    refusal = refused(an_object(**{"a\nb\u202e": {"x" * 5000 + "\x1b": 1}}))

    assert refusal.error.isprintable()
    assert len(refusal.error) < 1000
