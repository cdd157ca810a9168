"""A schema becomes a grammar of its values and of nothing else."""

import json
from typing import Any

import jsonschema
import pytest

pytest.importorskip("llama_cpp")

from benchmarks.schemas.generate import Generator
from edged.engine.json_grammar import json_text
from edged.engine.json_reader import ANY_DEPTH
from edged.engine.json_schema import grammar_of
from edged.engine.json_source import MAX_LENGTH
from tests.engine.grammar_walks import derives, random_answer

STRING, NUMBER, INTEGER, NULL = ({"type": name} for name in ("string", "number", "integer", "null"))
TREE = {
    "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}},
    "$ref": "#/$defs/tree",
}


def grammar(schema: Any) -> str:
    return grammar_of({"type": "json_schema", "schema": schema})


def an_object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required]}


CASES: list[tuple[Any, list[str], list[str]]] = [
    (NULL, ["null"], ["nul", "true", '"null"', ""]),
    ({"type": "boolean"}, ["true", "false"], ["null", "1", "True"]),
    (INTEGER, ["0", "-7", "123456789012345"], ["007", "1.0", "+1", "-", "1e3", "true"]),
    (NUMBER, ["0", "-1.5", "1e3", "2.5E-10", "-0"], [".5", "1.", "01", "NaN", "1e", "Infinity"]),
    (
        STRING,
        ['""', '"a"', '"é 日本 🌍"', r'"\"\\\/\b\f\n\r\t"', r'"\u00e9\uD7FF"'],
        ["a", '"', '"a'],
    ),
    (STRING, [r'"\ue000"'], [r'"\ud800"', r'"\uDFFF"', r'"\x41"', '"\n"', '"\x7f"', '"\t"']),
    ({"type": ["integer", "null"]}, ["4", "null"], ['"4"', "true"]),
    (
        {"type": "string", "minLength": 2, "maxLength": 3},
        ['"ab"', '"日本語"', r'"\n\u0041🌍"', r'"\\\""'],
        ['"a"', '"abcd"', '"🌍"', '""'],
    ),
    ({"type": "string", "maxLength": 0}, ['""'], ['"a"']),
    ({"minLength": 2}, ['"ab"'], ['"a"', "1"]),
    ({"const": "on"}, ['"on"'], ['"off"', '"o"', "on"]),
    ({"const": {"a": [1, None]}}, ['{"a":[1,null]}'], ['{"a":[1]}']),
    ({"enum": ["a", "ab", "b", 1, 12, None]}, ['"a"', '"ab"', "1", "12", "null"], ['"aa"', "2"]),
    (
        {"enum": ["ü", 'say "x"', "a\\b", "l\n"]},
        ['"ü"', r'"say \"x\""', r'"a\\b"', r'"l\n"'],
        ['"u"'],
    ),
    ({"enum": [1, "1", True], "type": "string"}, ['"1"'], ["1", "true"]),
    ({"enum": [1, 1.0, 1.5, True], "type": "integer"}, ["1", "1.0"], ["1.5", "true"]),
    ({"enum": ["a", "abc"], "minLength": 2}, ['"abc"'], ['"a"']),
    ({"enum": [[], [1], 3], "maxItems": 0}, ["[]", "3"], ["[1]"]),
    ({"enum": [1, 2, True], "const": 1.0}, ["1"], ["2", "true", "1.0"]),
    (
        an_object("a", a=INTEGER, b=NULL),
        ['{"a":1}', '{"a":1,"b":null}', ' {"a": 1, "b": null}'],
        ["{}", '{"b":null,"a":1}', '{"a":1,"c":2}', '{"a":1,}', '{"a":1,"a":2}', '{ "a":1}'],
    ),
    (
        an_object(a=NULL, b=NULL, c=NULL),
        ["{}", '{"a":null}', '{"c":null}', '{"a":null,"c":null}', '{"a":null,"b":null,"c":null}'],
        ['{"b":null,"a":null}', '{,"a":null}', '{"c":null,}'],
    ),
    (
        an_object("b", a=NULL, b=NULL, c=NULL),
        ['{"b":null}', '{"a":null,"b":null}', '{"b":null,"c":null}'],
        ["{}", '{"a":null}', '{"a":null,"c":null}'],
    ),
    ({"properties": {'ä/~"\\\n': NULL}}, ['{"ä/~\\"\\\\\\n":null}'], ['{"a":null}', "null"]),
    (
        {"type": "object", "additionalProperties": INTEGER},
        ["{}", '{"a":1}', '{"x":1,"":2,"x y":3}'.replace('"":2,', "")],
        ['{"a":"b"}', '{"a":1,}', '{"":1}'],
    ),
    ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a":1}']),
    ({"type": "object", "properties": {}}, ["{}", '{"a":[1]}'], ["[]"]),
    (
        {"type": "object", "required": ["a"], "additionalProperties": INTEGER},
        ['{"a":1}'],
        ["{}", '{"a":null}', '{"a":1,"b":1}'],
    ),
    ({**an_object("z", a=NULL)}, ['{"a":null,"z":[1]}', '{"z":{}}'], ['{"a":null}']),
    (an_object(a=False, b=NULL), ["{}", '{"b":null}'], ['{"a":null}']),
    ({"type": "array", "items": INTEGER}, ["[]", "[1]", "[1, 2,3]"], ["[1,]", '["a"]', "[1 ,2]"]),
    (
        {"type": "array", "items": NULL, "minItems": 2, "maxItems": 3},
        ["[null,null]", "[null,null,null]"],
        ["[null]", "[null,null,null,null]", "[]"],
    ),
    ({"type": "array", "items": NULL, "maxItems": 1}, ["[]", "[null]"], ["[null,null]"]),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ({"type": "array", "items": False}, ["[]"], ["[1]"]),
    ({"items": NULL}, ["[null]"], ["null"]),
    ({"anyOf": [INTEGER, {"enum": ["a"]}]}, ["3", '"a"'], ['"b"', "null"]),
    ({"anyOf": [INTEGER, STRING, NULL], "type": ["string", "null"]}, ['"a"', "null"], ["1"]),
    (
        {"anyOf": [False, NULL, {"type": "string", "minLength": 2, "maxLength": 1}]},
        ["null"],
        ['""'],
    ),
    (
        {"anyOf": [an_object("k", k={"const": "a"}, v=NULL), an_object("k", k={"const": "b"})]},
        ['{"k":"a","v":null}', '{"k":"b"}', '{"k":"a"}'],
        ['{"k":"b","v":null}', '{"k":"c"}'],
    ),
    ({"$defs": {"a b/c~": NULL}, "$ref": "#/$defs/a%20b~1c~0"}, ["null"], ["1"]),
    (
        {
            "definitions": {"x": {"type": ["string", "null"]}},
            "$ref": "#/definitions/x",
            "type": "null",
        },
        ["null"],
        ['"a"'],
    ),
    (TREE, ["{}", '{"left":{"left":{}}}', '{"left":' * 40 + "{}" + "}" * 40], ['{"left":null}']),
    ({"type": "array", "items": {"$ref": "#"}}, ["[]", "[[],[[]]]"], ["[1]"]),
    (True, ["null", "1.5", '{"a":[{}]}', '[" "]'], ["[", "nul"]),
    (
        {"title": "t", "description": "d", "default": 5, "examples": [], "$comment": "c"},
        ["5"],
        [""],
    ),
]


@pytest.mark.parametrize(("schema", "answers", "others"), CASES, ids=lambda value: str(value)[:40])
def test_the_grammar_has_these_answers_and_not_those(
    schema: Any, answers: list[str], others: list[str]
) -> None:
    text = grammar(schema)

    assert [answer for answer in answers if not derives(text, answer)] == []
    assert [answer for answer in others if derives(text, answer)] == []


@pytest.mark.parametrize(("schema", "answers", "others"), CASES, ids=lambda value: str(value)[:40])
def test_these_answers_are_valid(schema: Any, answers: list[str], others: list[str]) -> None:
    for answer in answers:
        jsonschema.validate(json.loads(answer), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("seed", range(150))
def test_a_whole_answer_to_a_random_schema_parses_and_validates(seed: int) -> None:
    schema = Generator(seed).schema()
    answer = random_answer(grammar(schema), seed)

    if answer is not None:
        jsonschema.validate(json.loads(answer), schema, jsonschema.Draft202012Validator)


def test_most_answers_to_random_schemas_end() -> None:
    answers = [random_answer(grammar(Generator(seed).schema()), seed) for seed in range(40)]

    assert answers.count(None) < 4


def test_json_object_is_an_object_of_anything() -> None:
    text = grammar_of({"type": "json_object"})

    assert derives(text, '{"a":[1,{"b":null}],"c":"d"}')
    assert not derives(text, "[]")


def test_values_of_which_nothing_is_said_are_nested_so_deep_and_no_deeper() -> None:
    text = grammar(True)

    assert derives(text, "[" * ANY_DEPTH + "]" * ANY_DEPTH)
    assert not derives(text, "[" * (ANY_DEPTH + 1) + "]" * (ANY_DEPTH + 1))


@pytest.mark.parametrize("answer", ["9" * 16, "1." + "1" * 16, "1e100", "1" * 15 + "e999"])
def test_no_number_goes_on_for_ever_or_beyond_a_double(answer: str) -> None:
    assert not derives(grammar(NUMBER), answer)


def test_the_same_schema_gives_the_same_grammar() -> None:
    schema = Generator(7).schema()

    assert grammar(schema) == grammar(json.loads(json.dumps(schema)))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": MAX_LENGTH, "maxLength": MAX_LENGTH},
        {"type": "array", "items": NULL, "maxItems": MAX_LENGTH},
    ],
    ids=["length", "items"],
)
def test_what_is_as_long_as_a_limit_is_kept_to_the_unit(schema: Any) -> None:
    text = grammar(schema)
    longest = (
        '"' + "x" * MAX_LENGTH
        if schema["type"] == "string"
        else "[null" + ",null" * (MAX_LENGTH - 1)
    )
    end, more = ('"', "x") if schema["type"] == "string" else ("]", ",null")

    assert derives(text, longest + end)
    assert not derives(text, longest + more + end)


def test_definitions_that_double_at_each_step_come_to_one() -> None:
    doubling = {
        f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}, {"$ref": f"#/$defs/d{at + 1}"}]}
        for at in range(100)
    }

    assert derives(grammar({"$defs": {**doubling, "d100": NULL}, "$ref": "#/$defs/d0"}), "null")


AMBIGUOUS = {
    "anyOf": [
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 2},
        {"type": "null"},
    ]
}


def test_recursion_that_would_multiply_the_readings_goes_a_few_levels_deep() -> None:
    text = grammar(AMBIGUOUS)

    assert derives(text, "[[null],null,[]]")
    assert not derives(text, "[" * 20 + "]" * 20)


def branching(*keys: str) -> dict[str, Any]:
    """A tree whose nodes have these properties, in this order."""
    kinds = []
    for kind, more in (("leaf", ()), ("branch", ("left",))):
        properties = {"kind": {"const": kind}, "left": {"$ref": "#"}}
        kinds.append(an_object("kind", *more, **{key: properties[key] for key in keys}))
    return {"anyOf": kinds}


def test_recursion_whose_alternatives_are_told_apart_before_goes_on() -> None:
    text = grammar(branching("kind", "left"))

    assert derives(text, '{"kind":"branch","left":' * 40 + '{"kind":"leaf"}' + "}" * 40)


def test_recursion_whose_alternatives_are_told_apart_after_goes_a_few_levels_deep() -> None:
    text = grammar(branching("left", "kind"))

    assert derives(text, '{"left":' * 2 + '{"kind":"leaf"}' + ',"kind":"branch"}' * 2)
    assert not derives(text, '{"left":' * 40 + '{"kind":"leaf"}' + ',"kind":"branch"}' * 40)


def test_the_spelling_of_a_value_is_compact() -> None:
    assert json_text({"a": [1, "é"]}) == '{"a":[1,"é"]}'
