"""The figures of ``edged top``: gauge, sparkline, memory bar; told apart without colours, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from edged.cli.top_facts import SILENT_S, Sample, heat_style, sized, span

COLUMN_S: Final = 10.0
"""What a column of a sparkline stands for: a node speaks at least so often."""
EMPTY: Final = "·"
EMPTY_STYLE: Final = "bright_black"

_COLDEST_C: Final = 20.0
_ROOM_ABOVE_C: Final = 10.0
_HOTTEST_C: Final = 100.0
"""Where the gauge ends for want of a limit."""
_LEAST_SPREAD_C: Final = 4.0
"""A sparkline's height is at least so many degrees: noise must not look like a fever."""
_HEIGHTS: Final = "▁▂▃▄▅▆▇█"
_LIMIT, _FORECAST = "│", "◆"
_IN_ASCII: Final = str.maketrans("▁▂▃▄▅▆▇█▓▒░│◆·→…°–╭╮╰╯─", "_..--==#=o:|*.>~'-++++-")


@dataclass(frozen=True)
class Part:
    """One part of the memory in use, with the sign that stands for it in the bar."""

    name: str
    size_bytes: float
    sign: str
    colour: str


def in_ascii(text: str) -> str:
    """The same with signs that every terminal has; each stays one column wide."""
    return text.translate(_IN_ASCII).encode("ascii", "replace").decode()


def gauge(
    columns: int, temperature_c: float, forecast_c: float | None, limit_c: float | None
) -> Text:
    """A bar up to the temperature, with a mark for the forecast and one for the limit."""
    end_c = _HOTTEST_C if limit_c is None else limit_c + _ROOM_ABOVE_C
    end_c = max(end_c, _COLDEST_C + 2 * _ROOM_ABOVE_C)

    def place(value_c: float) -> int:
        share = (value_c - _COLDEST_C) / (end_c - _COLDEST_C)
        return min(max(round(share * (columns - 1)), 0), columns - 1)

    limit = None if limit_c is None else min(max(place(limit_c), 1), columns - 3)
    # Rounding must not tell another story than the figures: only what is above the limit
    # stands beyond it.
    filled = place(temperature_c) + 1
    if limit is not None and limit_c is not None:
        filled = max(filled, limit + 2) if temperature_c >= limit_c else min(filled, limit)
    mark = None if forecast_c is None else place(forecast_c)
    if mark is not None and limit is not None and forecast_c is not None and limit_c is not None:
        # Nor must the mark cover all that is beyond.
        beyond = (
            min(max(limit + 1, filled), columns - 1) if forecast_c >= temperature_c else limit + 1
        )
        mark = max(mark, beyond) if forecast_c >= limit_c else min(mark, limit - 1)
    text = Text()
    for column in range(columns):
        if column == limit:
            text.append(_LIMIT, "bold")
        elif column == mark and forecast_c is not None:
            text.append(_FORECAST, heat_style(forecast_c, limit_c))
        elif column < filled:
            text.append("█", heat_style(temperature_c, limit_c))
        else:
            text.append(EMPTY, EMPTY_STYLE)
    return text


def sparkline(
    columns: int, samples: Sequence[Sample], now_s: float, limit_c: float | None
) -> tuple[Text, str]:
    """The last temperatures, a column each ``COLUMN_S``, the newest on the right; and their range.

    Both are empty where there is nothing to draw yet.
    """
    seen = _by_column(columns, samples, now_s)
    known = [value for value in seen if value is not None]
    if not known:
        return Text(), ""
    low_c, high_c = min(known), max(known)
    spread_c = max(high_c - low_c, _LEAST_SPREAD_C)
    floor_c = (low_c + high_c - spread_c) / 2
    text = Text()
    for value in seen:
        if value is None:
            text.append(" ")
            continue
        height = round((value - floor_c) / spread_c * (len(_HEIGHTS) - 1))
        text.append(_HEIGHTS[height], heat_style(value, limit_c))
    return text, f"{low_c:.1f} to {high_c:.1f} °C in {span(len(seen) * COLUMN_S)}"


def _by_column(columns: int, samples: Sequence[Sample], now_s: float) -> list[float | None]:
    """The hottest of each column; what was said holds until the next word, but not for ever."""
    last = int(now_s // COLUMN_S)
    hottest: dict[int, float | None] = {}
    for sample in samples:
        column = int(sample.at_s // COLUMN_S)
        both = [hottest.get(column), sample.temperature_c]
        hottest[column] = max((each for each in both if each is not None), default=None)
    values: list[float | None] = []
    for column in range(last - columns + 1, last + 1):
        lasts = range(column, column - int(SILENT_S // COLUMN_S) - 1, -1)
        said = next((each for each in lasts if each in hottest), None)
        values.append(None if said is None else hottest[said])
    first = next((index for index, value in enumerate(values) if value is not None), len(values))
    return values[first:]


def memory_parts(memory: Mapping[str, Any]) -> tuple[list[Part], float | None]:
    """What is in use, by part, and what all of it is a share of; ``None`` where nobody says.

    Where the worker holds less than its weights and cache take, a part of them lies elsewhere (a
    GPU, the file), and nobody knows which; so it is one part.
    """
    worker, total = sized(memory, "worker_bytes"), sized(memory, "total_bytes")
    available = sized(memory, "available_bytes")
    weights, cache = sized(memory, "weights_bytes") or 0, sized(memory, "kv_cache_bytes") or 0
    parts = []
    if worker is not None and weights + cache and weights + cache <= worker:
        parts = [
            Part("weights", weights, "█", "blue"),
            Part("KV cache", cache, "▓", "cyan"),
            Part("rest of worker", worker - weights - cache, "▒", "magenta"),
        ]
    elif worker is not None:
        parts = [Part("worker", worker, "█", "blue")]
    if total is not None and available is not None:
        # Weights mapped from a file are the worker's and available, too: the bar counts them once.
        other = max(total - available - (worker or 0), 0)
        return [*parts, Part("other", other, "░", "bright_black")], total or None
    if worker is not None and available is not None:
        return parts, worker + available or None
    return parts, None


def memory_bar(columns: int, parts: Sequence[Part], total_bytes: float) -> Text:
    """The parts side by side; what is left of the columns is available."""
    text = Text()
    filled_bytes, filled = 0.0, 0
    for part in parts:
        filled_bytes += part.size_bytes
        until = min(round(filled_bytes / total_bytes * columns), columns)
        text.append(part.sign * (until - filled), part.colour)
        filled = max(filled, until)
    return text.append(EMPTY * (columns - filled), EMPTY_STYLE)
