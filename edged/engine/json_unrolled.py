"""Keeps the ways in which an answer could be read to as many as llama.cpp can follow."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from edged.engine.json_ambiguity import Readings
from edged.engine.json_shapes import Array, Map, Places, Record, Shape, fillable, inner
from edged.engine.json_source import Where, refusal

MAX_STACKS: Final = 256
"""With so many, judging all of 32,000 tokens takes about 25 ms on a PC."""
_LEVELS: Final = (2, 1, 0)

Circles = Mapping[int, list[tuple[Shape, frozenset[int]]]]


def readable(places: Places, where: Callable[[int], Where]) -> Places:
    """The same values, or less of those inside themselves.

    Where a value comes inside itself with alternatives that begin alike, each level would multiply
    the readings; there it may only do so a few levels deep. ``places`` are as ``fillable`` leaves
    them. Raises ``InvalidRequest`` where all that is not enough.
    """
    readings = Readings(places)
    circles = readings.circles()
    if not circles:
        place, stacks = readings.most()
        if stacks > MAX_STACKS:
            raise refusal(
                f"an answer could be read in more than {MAX_STACKS} ways at once, since too many "
                "properties in a row are optional, or alternatives begin alike; let each begin "
                "with a required property whose const tells it from the others",
                where(place),
                limit=MAX_STACKS,
            )
        return places
    for levels in _LEVELS:
        unrolled = fillable(_unrolled(places, circles, levels))
        if unrolled[0] and Readings(unrolled).most()[1] <= MAX_STACKS:
            return unrolled
    raise refusal(
        "alternatives begin alike and come inside themselves; let each begin with a required "
        "property whose const tells it from the others",
        where(min(circles)),
    )


def _unrolled(places: Places, circles: Circles, levels: int) -> Places:
    """The places again for each level; one more circle than ``levels`` leads to no value."""
    nowhere = 1
    numbers = {(0, 0): 0}
    unrolled: list[list[Shape]] = [[], []]
    todo = [(0, 0)]

    def at(place: int, level: int) -> int:
        if level > levels:
            return nowhere
        key = (place, level)
        if key not in numbers:
            numbers[key] = len(unrolled)
            unrolled.append([])
            todo.append(key)
        return numbers[key]

    again: dict[tuple[Shape, int, frozenset[int]], Shape] = {}
    while todo:
        place, level = todo.pop()
        leading_back = dict(circles.get(place, ()))
        for shape in places[place]:
            back = leading_back.get(shape, frozenset())
            key = (shape, level, back)
            if key not in again:
                again[key] = _moved(
                    shape, {each: at(each, level + (each in back)) for each in inner(shape)}
                )
            unrolled[numbers[place, level]].append(again[key])
    return unrolled


def _moved(shape: Shape, places: Mapping[int, int]) -> Shape:
    """The same shape with other places inside."""
    if isinstance(shape, Array):
        return replace(shape, item=places[shape.item])
    if isinstance(shape, Map):
        return replace(shape, value=places[shape.value])
    if isinstance(shape, Record):
        members = [replace(member, place=places[member.place]) for member in shape.members]
        return Record(tuple(members))
    return shape
