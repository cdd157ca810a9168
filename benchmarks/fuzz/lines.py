"""Which lines of the code under test a corpus reaches."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from edged.engine import (
    json_ambiguity,
    json_grammar,
    json_reader,
    json_schema,
    json_shapes,
    json_source,
    json_unrolled,
)
from edged.transports import address, body, decode, encode, topics

UNDER_TEST: tuple[ModuleType, ...] = (
    *(decode, body, topics, address, encode),
    *(json_schema, json_source, json_reader, json_shapes, json_ambiguity, json_unrolled),
    json_grammar,
)

# Read when they are loaded: files may change under a long campaign.
_SOURCES = {
    module.__name__: Path(module.__file__).read_text("utf-8")
    for module in UNDER_TEST
    if module.__file__
}


def reached(run: Callable[[], object]) -> dict[str, tuple[set[int], set[int]]]:
    """By module, the lines inside functions that ``run`` reaches, and all of them."""
    files = {module.__file__: module for module in UNDER_TEST}
    seen: dict[str, set[int]] = {module.__name__: set() for module in UNDER_TEST}

    def watch(frame: FrameType, _event: str, _argument: Any) -> Any:
        module = files.get(frame.f_code.co_filename)
        if module is None:
            return None
        lines = seen[module.__name__]

        def line(frame: FrameType, _event: str, _argument: Any) -> Any:
            lines.add(frame.f_lineno)
            return line

        return line

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        run()
    finally:
        sys.settrace(before)
    found = {}
    for module in UNDER_TEST:
        lines = _lines_of_functions(module)
        found[module.__name__] = (seen[module.__name__] & lines, lines)
    return found


def _lines_of_functions(module: ModuleType) -> set[int]:
    code = compile(_SOURCES[module.__name__], module.__name__, "exec")
    return {line for function in _functions(code) for line in _lines(function)}


def _functions(code: CodeType) -> Iterable[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _functions(constant)
            if constant.co_flags & 0x2:  # CO_NEWLOCALS: a function, and no class's body
                yield constant


def _lines(function: CodeType) -> set[int]:
    """Without the line of ``def``, which is passed when the function is made."""
    lines = {line for _, _, line in function.co_lines() if line is not None}
    is_named = not function.co_name.startswith("<")
    return lines - ({function.co_firstlineno} if is_named else set())
