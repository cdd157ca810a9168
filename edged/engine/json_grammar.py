"""Writes the values that places allow as GBNF, the grammar notation of llama.cpp.

Compact JSON, but for one space that may stand at the beginning and after each comma and colon,
as most models write it. Numbers and keys end after so many digits or characters: a model that
always takes the likeliest token would go on for ever.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from edged.engine.json_shapes import (
    Array,
    Literal,
    Map,
    Member,
    Number,
    Places,
    Record,
    Shape,
    Text,
)

# Characters without the control characters and without surrogates. The range is spelled out, since
# llama.cpp would take [^"] for bytes, too, that are no UTF-8. With 16 digits and an exponent of
# two, no number is beyond a double.
_COMMON = r"""
sp ::= " "?
char ::= [ !#-\[\]-~\u00A0-\uD7FF\uE000-\U0010FFFF] | "\\" escape
escape ::= ["\\/bfnrt] | "u" unit
unit ::= [0-9A-CE-Fa-ce-f] hex hex hex | [Dd] [0-7] hex hex
hex ::= [0-9A-Fa-f]
key ::= "\"" char{1,64} "\":" sp
whole ::= "-"? natural
natural ::= "0" | [1-9] [0-9]{0,14}
number ::= whole fraction? exponent?
fraction ::= "." [0-9]{1,15}
exponent ::= [eE] [+-]? [0-9]{1,2}
"""
_ESCAPED = str.maketrans({'"': r"\"", "\\": r"\\"})


def grammar_text(places: Places) -> str:
    """The grammar of the values at place 0; ``places`` are as ``fillable`` leaves them."""
    return _Writer(places).text()


def json_text(value: object) -> str:
    """The one spelling of a value. Raises ``ValueError`` for numbers that JSON has not."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class _Writer:
    """Rules as they come up, each once."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._rules: dict[str, str] = {}
        self._shapes: dict[Shape, str] = {}
        self._todo: list[int] = []

    def text(self) -> str:
        self._rules["root"] = ""  # comes first
        self._rules["root"] = f"sp {self._at(0)}"
        while self._todo:
            place = self._todo.pop()
            self._rules[f"p{place}"] = " | ".join(self._alternatives(self._places[place]))
        rules = (f"{name} ::= {body}" for name, body in self._rules.items())
        return "\n".join((*rules, _COMMON.strip(), ""))

    def _rule(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = body
        return name

    def _at(self, place: int) -> str:
        name = f"p{place}"
        if name not in self._rules:
            self._rules[name] = ""  # its turn comes
            self._todo.append(place)
        return name

    def _alternatives(self, shapes: Collection[Shape]) -> Iterable[str]:
        texts = [shape.text for shape in shapes if isinstance(shape, Literal)]
        if texts:
            yield self._tree(texts)
        for shape in shapes:
            if isinstance(shape, Number):
                yield "whole" if shape.is_whole else "number"
            elif not isinstance(shape, Literal):
                if shape not in self._shapes:
                    self._shapes[shape] = self._rule(self._body(shape))
                yield self._shapes[shape]

    def _tree(self, texts: Collection[str]) -> str:
        """Any of the texts, all different, branching where they do: few are then in question."""
        top = self._rule("")
        todo = [(top, texts)]
        while todo:
            name, rests = todo.pop()
            branches = []
            for _, group in groupby(sorted(rests), key=lambda text: text[:1]):
                alike = [*group]
                start = _common(alike[0], alike[-1])
                branches.append(_quoted(start))
                if len(alike) > 1:
                    rest = self._rule("")
                    branches[-1] += f" {rest}"
                    todo.append((rest, [text[len(start) :] for text in alike]))
            self._rules[name] = " | ".join(branches)
        return top

    def _body(self, shape: Text | Array | Record | Map) -> str:
        if isinstance(shape, Text):
            return rf'"\"" {_times("char", shape.least, shape.most)} "\""'
        if isinstance(shape, Array):
            item = self._at(shape.item)
            more = self._rule(f'"," sp {item}')
            rest = _times(more, max(shape.least - 1, 0), shape.most and shape.most - 1)
            some = f'{item} {rest} "]"'
            return '"[" ' + (some if shape.least else self._rule(f'"]" | {some}'))
        if isinstance(shape, Map):
            entry = f"key {self._at(shape.value)}"
            more = self._rule(f'"," sp {entry}')
            return '"{" ' + self._rule(f'"}}" | {entry} {more}* "}}"')
        return '"{" ' + self._members(shape.members)

    def _members(self, members: Sequence[Member]) -> str:
        """What follows the opening brace; optional members may each be passed over."""
        pairs = [
            f"{_quoted(json_text(member.key) + ':')} sp {self._at(member.place)}"
            for member in members
        ]
        # What may follow when something has been written, from the end to the beginning.
        later = ['"}"']
        for member, pair in zip(reversed(members), reversed(pairs), strict=True):
            body = f'"," sp {pair} {later[-1]}'
            later.append(self._rule(body if member.is_required else f"{body} | {later[-1]}"))
        later.reverse()
        start = next((at for at, member in enumerate(members) if member.is_required), len(pairs))
        first = f"{pairs[start]} {later[start + 1]}" if start < len(pairs) else '"}"'
        for at in reversed(range(start)):
            first = self._rule(f"{pairs[at]} {later[at + 1]} | {first}")
        return first


def _common(one: str, two: str) -> str:
    """What both begin with."""
    pairs = zip(one, two, strict=False)
    length = min(len(one), len(two))
    return one[: next((at for at, (a, b) in enumerate(pairs) if a != b), length)]


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPED)}"'


def _times(name: str, least: int, most: int | None) -> str:
    if most is None:
        return f"{name}{{{least},}}" if least else f"{name}*"
    if most == 0:
        return ""
    return f"{name}{{{least},{most}}}"
