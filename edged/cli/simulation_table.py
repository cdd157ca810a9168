"""What ``edged simulate`` shows to people."""

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged.messages import Level
from edged.simulation.results import Percentiles, Results

_COLOURS: Final[dict[Level, str]] = {
    "nominal": "green",
    "trimmed": "yellow",
    "throttled": "dark_orange",
    "paused": "red",
}
_BAR_COLUMNS: Final = 40
_IN_ASCII: Final = str.maketrans({"█": "#", "°": "", "·": "|"})


def report(results: Results, oracle_tokens: float) -> None:
    """Print it; without colours where stdout is no terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    for part in (_headline(results), Text(), _table(results, oracle_tokens), Text()):
        console.print(_printable(part, console), soft_wrap=True)
    for line in _levels(results):
        console.print(_printable(line, console), soft_wrap=True)


def _printable(part: Table | Text, console: Console) -> Table | Text:
    """What the screen's encoding lacks becomes something like it."""
    try:
        "█°·".encode(console.encoding)
    except UnicodeEncodeError:
        with console.capture() as capture:
            console.print(part)
        return Text(capture.get().rstrip("\n").translate(_IN_ASCII))
    return part


def _headline(results: Results) -> Text:
    scenario = results.scenario
    clock = "" if scenario.has_clock else " · no cap on the clock"
    return Text(
        f"{scenario.profile} · {scenario.case} · {scenario.ambient} °C · {scenario.workload} · "
        f"{scenario.minutes:g} min · {results.policy}{clock}",
        "bold",
    )


def _table(results: Results, oracle_tokens: float) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    above_s = results.seconds_above_limit
    table.add_row("hottest", f"{results.peak_c:.1f} °C", f"limit {results.limit_c:g} °C")
    table.add_row(
        "above the limit",
        Text(f"{above_s:,.1f} s", "red" if above_s else "green"),
        f"{results.seconds_above_hard:,.1f} s above the hard one",
    )
    of_oracle = f"{100 * results.tokens / oracle_tokens:.1f} % of" if oracle_tokens else "oracle:"
    table.add_row(
        "tokens", f"{results.tokens:,.0f}", f"{of_oracle} the oracle's {oracle_tokens:,.0f}"
    )
    table.add_row("prompt tokens read", f"{results.prefill_tokens:,.0f}", "")
    table.add_row(
        "energy", f"{results.joules / 1000:,.1f} kJ", f"{results.tokens_per_joule:.3f} tokens/J"
    )
    table.add_row("first token, half", *_times(results, "p50"))
    table.add_row("first token, 95 %", *_times(results, "p95"))
    return table


def _times(results: Results, which: str) -> tuple[str, str]:
    ours, cold = results.first_token_s, results.unthrottled_first_token_s
    return _seconds(ours, which), f"{_seconds(cold, which)} on a machine that never heats"


def _seconds(found: Percentiles | None, which: str) -> str:
    return "–" if found is None else f"{getattr(found, which):.1f} s"


def _levels(results: Results) -> Iterator[Text]:
    total_s = sum(results.levels.values())
    for level, seconds in results.levels.items():
        bar = "█" * round(_BAR_COLUMNS * seconds / total_s)
        line = Text(f"{level:<10}")
        line.append(f"{bar:<{_BAR_COLUMNS}}", _COLOURS[level]).append(f" {seconds:>8,.1f} s")
        yield line
