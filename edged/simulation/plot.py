"""A simulation as a picture. Needs matplotlib."""

import importlib
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from edged.errors import EdgedError
from edged.messages import Level
from edged.simulation.results import Results, Series

_COLOURS: Final[dict[Level, str]] = {
    "nominal": "#ffffff",
    "trimmed": "#fff3c4",
    "throttled": "#ffd0a8",
    "paused": "#f3a5a5",
}
_WINDOW_S: Final = 30.0
"""Over which tokens are averaged to tokens a second."""


def plot(results: Results, file: Path) -> None:
    """Temperature, clock and watts, tokens a second; raises ``EdgedError`` if it cannot write."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    series, scenario = results.series, results.scenario
    figure, axes = pyplot.subplots(3, 1, figsize=(10, 8), sharex=True, layout="constrained")
    heat, clock, speed = axes
    for panel in axes:
        _bands(panel, series)
    figure.suptitle(
        f"{scenario.profile}, {scenario.case}, {scenario.ambient} °C, {scenario.workload}: "
        f"{results.policy}"
    )
    heat.plot(series.minutes, series.sensed_c, color="#b0b0b0", linewidth=0.6, label="sensed")
    heat.plot(series.minutes, series.true_c, color="#c0392b", label="true")
    heat.axhline(results.limit_c, color="black", linestyle="--", linewidth=0.8, label="limit")
    heat.set_ylabel("°C")
    clock.plot(series.minutes, [mhz / 1000 for mhz in series.clock_mhz], label="clock, GHz")
    clock.plot(series.minutes, series.watts, label="watts", color="#8e44ad", linewidth=0.8)
    clock.set_ylim(bottom=0)
    speed.plot(series.minutes, _tokens_per_s(series), color="#27ae60", label="tokens/s")
    speed.set_ylim(bottom=0)
    speed.set_xlabel("minutes")
    for panel in axes:
        panel.legend(loc="lower right", fontsize="small")
        panel.margins(x=0)
    levels = [
        pyplot.Rectangle((0, 0), 1, 1, facecolor=_COLOURS[level], edgecolor="#b0b0b0")
        for level in results.levels
    ]
    names = [f"{level} {seconds:,.0f} s" for level, seconds in results.levels.items()]
    figure.legend(levels, names, loc="outside lower center", ncols=len(names), fontsize="small")
    try:
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise EdgedError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        pyplot.close(figure)


def _bands(panel: Any, series: Series) -> None:
    """The level as a background."""
    pairs = zip(series.minutes, series.levels, strict=True)
    spans = [(level, [minute for minute, _ in part]) for level, part in groupby(pairs, _level)]
    ends = [minutes[0] for _, minutes in spans[1:]] + [series.minutes[-1]]
    for (level, minutes), end in zip(spans, ends, strict=True):
        panel.axvspan(minutes[0], end, color=_COLOURS[level], linewidth=0, zorder=0)


def _level(pair: tuple[float, Level]) -> Level:
    return pair[1]


def _tokens_per_s(series: Series) -> list[float]:
    """Generated over the window that ends at each moment."""
    speeds = []
    first = 0
    for last, minute in enumerate(series.minutes):
        while 60 * (minute - series.minutes[first]) > _WINDOW_S:
            first += 1
        took_s = 60 * (minute - series.minutes[first])
        made = series.tokens[last] - series.tokens[first]
        speeds.append(made / took_s if took_s else 0.0)
    return speeds
