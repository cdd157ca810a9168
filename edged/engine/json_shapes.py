"""Which JSON values are allowed, as a graph: the middle between a schema and a grammar.

A *place* is where a value stands, numbered from 0, the root. It has shapes, any of which the
value may take; a shape of a container names the places of what it contains.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Literal:
    """One value, as JSON text."""

    text: str


@dataclass(frozen=True)
class Text:
    """A string; the bounds count code points."""

    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Number:
    """A number, perhaps only a whole one."""

    is_whole: bool


@dataclass(frozen=True)
class Array:
    """A list whose values all stand at the same place."""

    item: int
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Member:
    """A property of an object."""

    key: str
    place: int
    is_required: bool


@dataclass(frozen=True, eq=False)
class Record:
    """An object with these properties and no others, in this order; compared by identity."""

    members: tuple[Member, ...]


@dataclass(frozen=True)
class Map:
    """An object with any keys."""

    value: int


Shape = Literal | Text | Number | Array | Record | Map
Places = Sequence[Collection[Shape]]


def inner(shape: Shape) -> list[int]:
    """The places inside a value of this shape."""
    if isinstance(shape, Array):
        return [shape.item]
    if isinstance(shape, Map):
        return [shape.value]
    return [member.place for member in shape.members] if isinstance(shape, Record) else []


def fillable(places: Places) -> list[tuple[Shape, ...]]:
    """The same without what no finite value can be, and nothing twice.

    Where the root is left empty, there is no value at all.
    """
    needs = {shape: _needed(shape) for shapes in places for shape in shapes}
    dependents: dict[int, list[int]] = defaultdict(list)
    for place, shapes in enumerate(places):
        for needed in {each for shape in shapes for each in needs[shape]}:
            dependents[needed].append(place)
    filled: set[int] = set()
    todo = deque(reversed(range(len(places))))  # what stands inside mostly has the higher number
    while todo:
        place = todo.popleft()
        if place not in filled and any(filled.issuperset(needs[each]) for each in places[place]):
            filled.add(place)
            todo += dependents[place]
    kept = {
        shape: _without(shape, filled)
        for shape, needed in needs.items()
        if filled.issuperset(needed)
    }
    return [
        tuple(dict.fromkeys(kept[each] for each in shapes if each in kept)) for shapes in places
    ]


def _needed(shape: Shape) -> Collection[int]:
    """The places without which there is no such value."""
    if isinstance(shape, Array) and shape.least:
        return (shape.item,)
    if isinstance(shape, Record):
        return [member.place for member in shape.members if member.is_required]
    return ()


def _without(shape: Shape, filled: set[int]) -> Shape:
    if isinstance(shape, Array) and (shape.item not in filled or shape.most == 0):
        return Literal("[]")
    if isinstance(shape, Map) and shape.value not in filled:
        return Literal("{}")
    if isinstance(shape, Record):
        return Record(tuple(member for member in shape.members if member.place in filled))
    return shape
