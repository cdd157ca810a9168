"""Reads a JSON schema into the places and shapes of the values that it allows."""

import graphlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from edged.engine.json_grammar import json_text
from edged.engine.json_shapes import Array, Literal, Map, Member, Number, Record, Shape, Text
from edged.engine.json_source import (
    OF_ONE_TYPE,
    ROOT,
    SILENT,
    TYPES,
    Where,
    bounds,
    check_keywords,
    declared_types,
    names,
    refusal,
    resolve,
    shown,
    some_values,
)
from edged.errors import InvalidRequest

MAX_PLACES: Final = 500
"""Schemas within the schema; each becomes a few rules."""
MAX_VALUES: Final = 1000
"""Of an ``enum``."""
MAX_COMPARISONS: Final = 5_000
"""Of alternatives, each with each at every place where they are."""
ANY_DEPTH: Final = 6
"""How deep values are nested of which the schema says nothing."""

_ALL: Final = frozenset[str]().union(*TYPES.values())
_CONTAINERS: Final = frozenset({"object", "array"})
_OF_WHAT_IS_INSIDE: Final = frozenset({"properties", "required", "additionalProperties", "items"})


class _Task(NamedTuple):
    """A schema that is still to be read."""

    place: int
    schema: Any
    types: frozenset[str]
    where: Where


class Reader:
    """Reads one schema, never deeper into the interpreter's stack than a few calls."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._numbers: dict[tuple[object, ...], int] = {}
        self._shapes: list[list[Shape]] = []
        self._aliases: list[list[int]] = []
        self._wheres: list[Where] = []
        self._todo: list[_Task] = []
        self._contradictions: list[InvalidRequest] = []

    def read(self) -> list[list[Shape]]:
        """The shapes of all places, the schema's own first. Raises ``InvalidRequest``."""
        self._at(self._root, _ALL, ROOT)
        while self._todo:
            self._read(self._todo.pop())
        try:
            order = [*graphlib.TopologicalSorter(dict(enumerate(self._aliases))).static_order()]
        except graphlib.CycleError as error:
            raise _circular(self._wheres[error.args[1][0]]) from None
        total = 0
        for place in order:
            shapes = dict.fromkeys(self._shapes[place])
            for alias in self._aliases[place]:
                shapes |= dict.fromkeys(self._shapes[alias])
            self._shapes[place] = [*shapes]
            containers = sum(isinstance(each, Array | Map | Record) for each in shapes)
            total += len(shapes) + containers**2
            if total > MAX_COMPARISONS:
                raise refusal("it has too many alternatives", limit=MAX_COMPARISONS)
        return self._shapes

    def where(self, place: int) -> Where:
        """Where the schema of a place stands."""
        return self._wheres[place]

    def contradiction(self) -> InvalidRequest:
        """Why there is no value that the schema allows."""
        if self._contradictions:
            return self._contradictions[0]
        return refusal("no finite value is allowed: what is required leads back to itself")

    def _contradicts(self, sentence: str, where: Where) -> None:
        self._contradictions.append(refusal(f"no value is allowed: {sentence}", where))

    def _new(self, key: tuple[object, ...], where: Where) -> int:
        place = self._numbers[key] = len(self._shapes)
        if place == MAX_PLACES:
            raise refusal(f"there are more than {MAX_PLACES} schemas in it", limit=MAX_PLACES)
        self._shapes.append([])
        self._aliases.append([])
        self._wheres.append(where)
        return place

    def _at(self, schema: Any, types: frozenset[str], where: Where) -> int:
        """The place of those values of a schema that are of ``types``."""
        schema, where = self._meant(schema, where)
        key = (id(schema), types)
        if key not in self._numbers:
            self._todo.append(_Task(self._new(key, where), schema, types, where))
        return self._numbers[key]

    def _meant(self, schema: Any, where: Where) -> tuple[Any, Where]:
        """The same schema, without references to it and without words that say nothing."""
        passed = set()
        while isinstance(schema, dict) and "$ref" in schema and schema.keys() <= SILENT | {"$ref"}:
            if id(schema) in passed:
                raise _circular(where)
            passed.add(id(schema))
            check_keywords(schema, where)
            schema, where = resolve(self._root, schema["$ref"], where)
        if isinstance(schema, dict) and schema.keys() <= SILENT:
            check_keywords(schema, where)
            return True, where
        return schema, where

    def _anything(self, depth: int) -> int:
        """The place of any values in which containers are at most ``depth`` deep."""
        key = ("anything", depth)
        if key not in self._numbers:
            place = self._new(key, ROOT)
            types = _ALL if depth else _ALL - _CONTAINERS
            self._shapes[place] += self._of_types(types, {}, ROOT, depth)
        return self._numbers[key]

    def _read(self, task: _Task) -> None:
        place, schema, types, where = task
        if schema is False:
            self._contradicts("false allows none", where)
            return
        schema = {} if schema is True else schema
        check_keywords(schema, where)
        if "type" in schema:
            types &= declared_types(schema, where)
        if "$ref" in schema:
            _check_alone("$ref", schema.keys() - SILENT - {"$ref", "type"}, where)
            target, there = resolve(self._root, schema["$ref"], where)
            self._aliases[place].append(self._at(target, types, there))
        elif "anyOf" in schema:
            _check_alone("anyOf", schema.keys() - SILENT - {"anyOf", "type"}, where)
            for at, each in enumerate(some_values(schema, "anyOf", where)):
                self._aliases[place].append(self._at(each, types, where / "anyOf" / str(at)))
        elif "enum" in schema or "const" in schema:
            self._shapes[place] += self._literals(types, schema, where)
        else:
            if "type" not in schema:
                # What is said of one type leaves values of all others free: none of them is given.
                meant = {OF_ONE_TYPE[keyword] for keyword in schema.keys() & OF_ONE_TYPE.keys()}
                types = types & meant or types
            self._shapes[place] += self._of_types(types, schema, where, ANY_DEPTH)

    def _literals(
        self, types: frozenset[str], schema: Mapping[str, Any], where: Where
    ) -> Iterable[Shape]:
        """The values of ``enum`` and ``const`` that all that is said beside them allows."""
        values = some_values(schema, "enum", where) if "enum" in schema else [schema["const"]]
        if len(values) > MAX_VALUES:
            raise refusal(
                f"enum has {len(values)} values, and {MAX_VALUES} are allowed",
                where / "enum",
                given=len(values),
                limit=MAX_VALUES,
            )
        lengths = bounds(schema, "minLength", "maxLength", where)
        counts = bounds(schema, "minItems", "maxItems", where)
        names(schema, where)
        found = []
        for value in values:
            try:
                text = json_text(value)
            except ValueError:
                raise refusal("a number is beyond what a double holds", where) from None
            kind = _type(value)
            if kind in _CONTAINERS:
                _check_alone("enum and const", schema.keys() & _OF_WHAT_IS_INSIDE, where)
            if (
                kind in types
                and ("const" not in schema or _same(value, schema["const"]))
                and (kind != "string" or _within(len(value), lengths))
                and (kind != "array" or _within(len(value), counts))
            ):
                found.append(Literal(text))
        if not found:
            self._contradicts("of enum and const nothing is left by what stands beside them", where)
        return found

    def _of_types(
        self, types: frozenset[str], schema: Mapping[str, Any], where: Where, depth: int
    ) -> Iterable[Shape]:
        """What is allowed of each type; of what nothing is said is ``depth`` deep."""
        if "null" in types:
            yield Literal("null")
        if "boolean" in types:
            yield from (Literal("true"), Literal("false"))
        if "string" in types:
            least, most = bounds(schema, "minLength", "maxLength", where)
            if most is None or least <= most:
                yield Text(least, most)
            else:
                self._contradicts(f"minLength {least} is above maxLength {most}", where)
        if "integer" in types:
            yield Number(is_whole="fraction" not in types)
        if "array" in types:
            least, most = bounds(schema, "minItems", "maxItems", where)
            if most is None or least <= most:
                yield Array(self._inside(schema, "items", where, depth), least, most)
            else:
                self._contradicts(f"minItems {least} is above maxItems {most}", where)
        if "object" in types:
            yield from self._objects(schema, where, depth)

    def _objects(self, schema: Mapping[str, Any], where: Where, depth: int) -> Iterable[Shape]:
        properties, required = names(schema, where)
        undeclared = [name for name in dict.fromkeys(required) if name not in properties]
        if undeclared and schema.get("additionalProperties") is False:
            self._contradicts(
                f"{shown(undeclared[0])} is required, and no properties but others are allowed",
                where,
            )
            return
        if not properties and not undeclared:
            if schema.get("additionalProperties") is False:
                yield Literal("{}")
            else:
                yield Map(self._inside(schema, "additionalProperties", where, depth))
            return
        needed = {*required}
        members = [
            Member(name, self._at(each, _ALL, where / "properties" / name), name in needed)
            for name, each in properties.items()
        ]
        if undeclared:
            others = self._inside(schema, "additionalProperties", where, depth)
            members += [Member(name, others, is_required=True) for name in undeclared]
        yield Record(tuple(members))

    def _inside(self, schema: Mapping[str, Any], keyword: str, where: Where, depth: int) -> int:
        """The place of what a keyword says of all values inside."""
        if keyword in schema:
            return self._at(schema[keyword], _ALL, where / keyword)
        return self._anything(depth - 1)


def _circular(where: Where) -> InvalidRequest:
    return refusal(
        "references lead back to themselves with no object and no array in between", where
    )


def _check_alone(whole: str, beside: Collection[str], where: Where) -> None:
    """Refuse what would have to hold together with ``whole``."""
    if beside:
        keyword = min(beside)
        raise refusal(
            f"the keyword {keyword} beside {whole} is not supported", where, keyword=keyword
        )


def _type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if value == int(value) else "fraction"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _same(one: object, two: object) -> bool:
    """Equal as JSON Schema has it: 1 is 1.0, and not true."""
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[name], two[name]) for name in one)
    return one == two and isinstance(one, bool) == isinstance(two, bool)


def _within(number: int, bounds: tuple[int, int | None]) -> bool:
    least, most = bounds
    return least <= number and (most is None or number <= most)
