"""What ``edged top`` shows of nodes: one in full, or several in brief. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edged.cli.bus import Node
from edged.cli.top_facts import (
    Sample,
    degrees_text,
    faults_text,
    level_text,
    mapping,
    model_name,
    model_text,
    number,
    prompts_text,
    silence_text,
    size,
    sized,
    status_text,
    words,
)
from edged.cli.top_figures import EMPTY, EMPTY_STYLE, gauge, memory_bar, memory_parts, sparkline

HISTORY_S: Final = 600.0
"""The longest that a sparkline goes back."""

_NARROWEST, _WIDEST = 40, 100
_BRIEF_COLUMNS: Final = 60
"""From twice this width on, panels stand side by side."""
_FRAME_COLUMNS: Final = 4
_LABEL_COLUMNS: Final = 13
_FIGURE_COLUMNS: Final = 60
_FIGURES_FROM: Final = 32
"""In a brief panel, where the figures begin, after the numbers."""
_LEAST_FIGURES: Final = 16
"""Columns; a smaller figure says nothing."""


def render(
    nodes: Sequence[Node],
    history: Mapping[str, Sequence[Sample]],
    now_s: float,
    width: int,
    height: int | None = None,
) -> RenderableType:
    """One node in full, several in brief, those online first.

    ``now_s`` is Unix time. Where ``height`` lines are too few for all, the last line names those
    that are left out.
    """
    if not nodes:
        return Text("no node on this broker; start one with: edged run", "yellow")
    ordered = sorted(nodes, key=lambda node: (not node.is_online, node.name))
    if len(ordered) == 1:
        node = ordered[0]
        columns = min(max(width, _NARROWEST), _WIDEST)
        return _full(node, history.get(node.name, ()), now_s, columns)
    return _several(ordered, history, now_s, width, height)


def _several(
    nodes: Sequence[Node],
    history: Mapping[str, Sequence[Sample]],
    now_s: float,
    width: int,
    height: int | None,
) -> Group:
    beside = max(width // _BRIEF_COLUMNS, 1)
    columns = min(max(width // beside, _NARROWEST), _WIDEST)
    rows: list[RenderableType] = []
    shown = lines = 0
    while row := nodes[shown : shown + beside]:
        contents = [
            list(_brief(node, history.get(node.name, ()), now_s, columns - _FRAME_COLUMNS))
            for node in row
        ]
        tall = max(len(content) for content in contents) + 2
        # The line that names those left out wants room, too, unless there are none.
        kept = 0 if shown + len(row) == len(nodes) else 1
        if height is not None and shown and lines + tall + kept > height:
            break
        panels = [
            _panel(node, Group(*content), columns, tall)
            for node, content in zip(row, contents, strict=True)
        ]
        grid = Table.grid()
        grid.add_row(*panels)
        rows.append(grid)
        shown, lines = shown + len(row), lines + tall
    if shown < len(nodes):
        others = ", ".join(words(node.name) for node in nodes[shown:])
        rows.append(_line(f"{len(nodes) - shown} more (--node shows one): {others}", "yellow"))
    return Group(*rows)


def _panel(node: Node, content: RenderableType, columns: int, tall: int | None = None) -> Panel:
    title = Text(words(node.name), "bold" if node.is_online else "dim")
    device = words(node.card.get("device"))
    if device:
        title.append(f", {device}", "not bold")
    style = "dim" if not node.is_online else "none"
    return Panel(
        content, title=title, title_align="left", width=columns, height=tall, border_style=style
    )


# One node


def _full(node: Node, samples: Sequence[Sample], now_s: float, columns: int) -> Panel:
    grid = Table.grid()
    grid.add_column(width=_LABEL_COLUMNS, style="dim")
    room = columns - _FRAME_COLUMNS - _LABEL_COLUMNS
    grid.add_column(width=room, overflow="fold")
    rows = _rows(node, samples, now_s, room) if node.is_online else _rows_of_the_absent(node)
    label = ""
    for name, fact in rows:
        grid.add_row(name if name != label else "", fact)
        label = name
    return _panel(node, grid, columns)


def _rows_of_the_absent(node: Node) -> Iterator[tuple[str, Text]]:
    yield "status", Text(status_text(node), "dim")
    if model := model_name(node.card):
        yield "model", Text(model, "dim")


def _rows(
    node: Node, samples: Sequence[Sample], now_s: float, room: int
) -> Iterator[tuple[str, Text]]:
    """Rows of the same name in a row have it once."""
    state = node.state
    yield "level", level_text(state, now_s)
    if silence := silence_text(samples, now_s):
        yield "level", silence
    figures = min(room, _FIGURE_COLUMNS)
    temperature_c, limit_c = number(state.get("temperature_c")), number(state.get("limit_c"))
    if temperature_c is None:
        yield "temperature", Text("not reported", "dim")
    else:
        forecast_c = number(state.get("forecast_c"))
        yield "temperature", gauge(figures, temperature_c, forecast_c, limit_c)
        degrees = degrees_text(temperature_c, state, ", forecast ◆ ", ", limit │ ")
        sensor = words(state.get("sensor"), 40)
        yield "temperature", degrees.append(f" ({sensor})" if sensor else "", "dim")
    drawn, spread = sparkline(figures, samples, now_s, limit_c)
    if spread:
        yield "temperature", drawn
        yield "temperature", Text(spread, "dim")
    if board := _board(state):
        yield "board", Text(board)
    yield from (("memory", line) for line in _memory(state, figures, room))
    yield "prompts", Text(prompts_text(state))
    yield "model", model_text(node) or Text("–")
    yield "faults", faults_text(state) or Text("none")


def _memory(state: Mapping[str, Any], figures: int, room: int) -> Iterator[Text]:
    memory = mapping(state.get("memory"))
    parts, total_bytes = memory_parts(memory)
    if total_bytes is not None:
        yield memory_bar(figures, parts, total_bytes)
    shown = [(part.sign, part.colour, part.name, part.size_bytes) for part in parts]
    if (available := sized(memory, "available_bytes")) is not None:
        shown.append((EMPTY, EMPTY_STYLE, "available", available))
    items = [Text.assemble((sign, style), f" {name} {size(of)}") for sign, style, name, of in shown]
    if (total := sized(memory, "total_bytes")) is not None:
        items.append(Text(f"of {size(total)}"))
    yield from _flowed(items, room)


def _flowed(items: Sequence[Text], room: int) -> Iterator[Text]:
    """As many a line as there is room for."""
    line = Text()
    for item in items:
        if line and line.cell_len + 2 + item.cell_len > room:
            yield line
            line = Text()
        line = Text.assemble(line, "  ", item) if line else item
    if line:
        yield line


def _board(state: Mapping[str, Any]) -> str:
    facts = (("fan", "fan_rpm", "rpm"), ("clock", "clock_mhz", "MHz"))
    known = [(name, number(state.get(key)), unit) for name, key, unit in facts]
    said = [f"{name} {value:,.0f} {unit}" for name, value, unit in known if value is not None]
    watts = number(state.get("watts"))
    return ", ".join([*said, *([] if watts is None else [f"{watts:.1f} W"])])


# Several nodes


def _brief(node: Node, samples: Sequence[Sample], now_s: float, room: int) -> Iterator[Text]:
    """Single lines, so that the height is known."""
    if not node.is_online:
        yield _line(f"{status_text(node)}; {model_name(node.card) or 'no model'}", "dim")
        return
    state = node.state
    yield _cut(level_text(state, now_s))
    if silence := silence_text(samples, now_s):
        yield _cut(silence)
    temperature_c, limit_c = number(state.get("temperature_c")), number(state.get("limit_c"))
    if temperature_c is not None:
        forecast_c = number(state.get("forecast_c"))
        line, left = _with_room(degrees_text(temperature_c, state, " → ", ", limit "), room)
        if left >= _LEAST_FIGURES:
            line.append_text(gauge(left // 2, temperature_c, forecast_c, limit_c)).append("  ")
            line.append_text(sparkline(left - left // 2 - 2, samples, now_s, limit_c)[0])
        yield _cut(line)
    memory = mapping(state.get("memory"))
    available, total = sized(memory, "available_bytes"), sized(memory, "total_bytes")
    if available is not None:
        of = f" of {size(total)}" if total is not None else ""
        line, left = _with_room(Text(f"{size(available)}{of} available"), room)
        parts, total_bytes = memory_parts(memory)
        if total_bytes is not None and left >= _LEAST_FIGURES:
            line.append_text(memory_bar(left, parts, total_bytes))
        yield _cut(line)
    yield _line(prompts_text(state))
    if model := model_text(node):
        yield _cut(model)
    if faults := faults_text(state):
        yield _cut(Text("faults: ").append_text(faults))


def _with_room(text: Text, room: int) -> tuple[Text, int]:
    """Filled up to where figures begin, and the columns that are left for them."""
    text.pad_right(max(_FIGURES_FROM - text.cell_len, 1))
    return text, room - text.cell_len


def _line(text: str, style: str = "") -> Text:
    return _cut(Text(text, style))


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
