"""In how many ways an answer could be read at once, found out before llama.cpp has to try.

llama.cpp follows every possible reading of an answer with a stack of its own, asks all of them
about every token, and sets no bound to their number. Alternatives that begin alike, one inside
the other, double it at every level, until the process is out of memory.
"""

from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import groupby
from typing import Final

from edged.engine.json_shapes import Array, Literal, Number, Places, Record, Shape, Text, inner

_TEXT_STACKS: Final = 3  # a character, an escape, or the end
_NUMBER_STACKS: Final = 4  # another digit, a point, an exponent, or what follows the number
_CONTAINERS: Final = frozenset("{[")
_MANY: Final = 1_000_000  # where counting ends


class Readings:
    """How answers can be read; ``places`` are as ``fillable`` leaves them."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._children = [[each for shape in shapes for each in inner(shape)] for shapes in places]
        self._stacks = [0] * len(places)
        self._texts = [
            {shape.text for shape in shapes if isinstance(shape, Literal)} for shapes in places
        ]
        self._open_kinds = [
            {_kind(shape) for shape in shapes if not isinstance(shape, Literal)}
            for shapes in places
        ]
        self._kinds = [set(map(_kind, shapes)) for shapes in places]
        self._members = {
            shape: {member.key: member.place for member in shape.members}
            for shapes in places
            for shape in shapes
            if isinstance(shape, Record)
        }
        self._apart: dict[tuple[Record, Record], bool] = {}

    @cached_property
    def _components(self) -> list[list[int]]:
        return _components(self._children)

    def circles(self) -> dict[int, list[tuple[Shape, frozenset[int]]]]:
        """By place, the shapes inside which it comes again with other shapes still in question.

        With each shape, through which of its places.
        """
        circles = {}
        for component in self._components:
            members = frozenset(component)
            for place in component:
                leading_back = [
                    (shape, back)
                    for shape in self._places[place]
                    if (back := members.intersection(inner(shape)))
                    and len(self._alike(place, shape)) > 1
                ]
                if leading_back:
                    circles[place] = leading_back
        return circles

    def most(self) -> tuple[int, int]:
        """The place where an answer can be read in the most ways, and how many; no circles."""
        for component in self._components:
            stacks = min(max(map(self._count, component)), _MANY)
            for place in component:
                self._stacks[place] = stacks
        return max(enumerate(self._stacks), key=lambda each: each[1])

    def _alike(self, place: int, shape: Shape) -> list[Shape]:
        """Those still in question when a container inside ``shape`` begins, and itself."""
        return [each for each in self._places[place] if not self._told_apart(shape, each)]

    def _count(self, place: int) -> int:
        """The most stacks that a value there needs at once."""
        weights = {each: self._within(each) for each in self._places[place]}
        inside = (
            sum(weights[each] for each in self._alike(place, shape))
            for shape in weights
            if inner(shape)
        )
        return max(self._outside(place), *inside, 0)

    def _outside(self, place: int) -> int:
        """The same before a container inside the value begins."""
        texts = self._texts[place]
        # The literals are written as a tree, which branches at each character into no more.
        literals = min(len(texts), len(set("".join(texts))) + 1)
        return literals + sum(map(self._own, self._places[place]))

    def _within(self, shape: Shape) -> int:
        return max(1, self._own(shape), *(self._stacks[place] for place in inner(shape)))

    def _own(self, shape: Shape) -> int:
        if isinstance(shape, Literal):
            return 0
        if isinstance(shape, Text):
            return _TEXT_STACKS
        if not isinstance(shape, Record):
            return _NUMBER_STACKS + 2
        runs = groupby(shape.members, key=lambda member: member.is_required)
        optional = max((len([*run]) for is_required, run in runs if not is_required), default=0)
        scalars = (
            self._stacks[member.place]
            for member in shape.members
            if not self._children[member.place]
        )
        return max(optional + 1 + _NUMBER_STACKS, *scalars, 0)

    def _told_apart(self, shape: Shape, other: Shape) -> bool:
        if shape == other:
            return False
        if isinstance(shape, Record) and isinstance(other, Record):
            pair = (shape, other)
            if pair not in self._apart:
                self._apart[pair] = self._undecided(shape, other).isdisjoint(
                    self._undecided(other, shape)
                )
            return self._apart[pair]
        return _kind(shape) != _kind(other)

    def _undecided(self, ours: Record, theirs: Record) -> set[str]:
        """The keys of containers that both have, and that come while ``ours`` may be ``theirs``."""
        places = self._members[theirs]
        undecided = set()
        for member in ours.members:
            place = places.get(member.key)
            if place is not None and self._share_containers(member.place, place):
                undecided.add(member.key)
            if member.is_required and (place is None or self._differ(member.place, place)):
                break
        return undecided

    def _share_containers(self, one: int, two: int) -> bool:
        return not _CONTAINERS.isdisjoint(self._kinds[one] & self._kinds[two])

    def _differ(self, one: int, two: int) -> bool:
        """Whether no value of one place begins like a whole value of the other."""
        return one != two and (
            self._open_kinds[one].isdisjoint(self._kinds[two])
            and self._open_kinds[two].isdisjoint(self._kinds[one])
            and self._texts[one].isdisjoint(self._texts[two])
        )


def _kind(shape: Shape) -> str:
    """What its values begin with; all numbers are ``0``."""
    if isinstance(shape, Literal):
        return shape.text[0] if shape.text[0] in '"{[tfn' else "0"
    if isinstance(shape, Text):
        return '"'
    if isinstance(shape, Number):
        return "0"
    return "[" if isinstance(shape, Array) else "{"


def _components(children: Sequence[Collection[int]]) -> list[list[int]]:
    """The strongly connected components of a graph, the innermost first (Kosaraju's algorithm)."""
    order: list[int] = []
    seen: set[int] = set()
    for root in range(len(children)):
        path = [] if root in seen else [(root, iter(children[root]))]
        seen.add(root)
        while path:
            place, rest = path[-1]
            child = next((each for each in rest if each not in seen), None)
            if child is None:
                order.append(place)
                path.pop()
            else:
                seen.add(child)
                path.append((child, iter(children[child])))
    parents: list[list[int]] = [[] for _ in children]
    for place, inside in enumerate(children):
        for child in inside:
            parents[child].append(place)
    components: list[list[int]] = []
    taken: set[int] = set()
    for root in reversed(order):
        if root in taken:
            continue
        taken.add(root)
        component = [root]
        for place in component:  # which grows meanwhile
            fresh = {parent for parent in parents[place] if parent not in taken}
            taken |= fresh
            component += fresh
        components.append(component)
    return components[::-1]
