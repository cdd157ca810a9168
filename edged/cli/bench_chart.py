"""What ``edged bench`` shows to people: a table, and every round as bars."""

import importlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged.errors import EdgedError

_FIGURES: Final = (
    ("prefill_tokens_per_s", "prompts read, tokens/s"),
    ("decode_tokens_per_s", "answer of one client, tokens/s"),
    ("aggregate_tokens_per_s", "answers of all clients, tokens/s"),
    ("first_token_ms", "first token after, ms"),
    ("gap_ms.p50", "between two tokens, ms"),
    ("gap_ms.p99", "… at worst (99 %), ms"),
)
_COLOURS: Final = {"subject": "green", "peer": "blue"}
_BAR_COLUMNS: Final = 40
_LABEL_COLUMNS: Final = 11
_WIDEST: Final = 100
_IN_ASCII: Final = str.maketrans("█÷…–", "#/.-")


def report(results: dict[str, Any]) -> None:
    """Print it; without colours where stdout is no terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    for part in _parts(results, min(console.width, _WIDEST)):
        console.print(_printable(part, console), soft_wrap=True)


def _printable(part: Table | Text, console: Console) -> Table | Text:
    """What the screen's encoding lacks becomes something like it."""
    try:
        "█÷…–".encode(console.encoding)
    except UnicodeEncodeError:
        with console.capture() as capture:
            console.print(part)
        return Text(capture.get().rstrip("\n").translate(_IN_ASCII))
    return part


def _parts(results: dict[str, Any], columns: int) -> Iterator[Table | Text]:
    yield from _headline(results["conditions"])
    yield Text()
    yield _table(results)
    yield Text()
    yield from _bars(results)
    yield Text()
    yield from _facts(results, columns)


def _headline(conditions: dict[str, Any]) -> Iterator[Text]:
    subject = conditions["subject"]
    size_mib = conditions["file_bytes"] / 2**20
    yield Text(
        f"{conditions['model']}: {conditions['model_name']}, {conditions['quantisation']}, "
        f"{size_mib:,.1f} MiB",
        "bold",
    )
    yield Text(
        f"{_count(conditions['clients'], 'client')}, about {conditions['prompt_tokens']} tokens of "
        f"prompt and {conditions['tokens']} of answer, {_count(conditions['rounds'], 'round')}"
    )
    engine = f"{subject['engine']} {subject['engine_version'] or ''}".strip()
    yield Text(
        f"edged {subject['version']} with {engine}, threads {subject['threads_decode']} to answer "
        f"and {subject['threads_prefill']} to read"
    )


def _table(results: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("median of the rounds")
    table.add_column("edged", justify="right", style=_COLOURS["subject"])
    peer = results["peer"]
    if peer is not None:
        name = results["conditions"]["peer"]["name"]
        table.add_column(name, justify="right", style=_COLOURS["peer"])
        table.add_column(f"edged ÷ {name}", justify="right")
    for path, words in _FIGURES:
        ours = _at(results["subject"], path)
        cells = [words, _number(ours)]
        if peer is not None:
            theirs = _at(peer, path)
            cells += [_number(theirs), _number(ours / theirs if ours and theirs else None)]
        table.add_row(*cells)
    return table


def _bars(results: dict[str, Any]) -> Iterator[Text]:
    rounds = results["rounds"]
    sides = ["subject", "peer"] if results["peer"] is not None else ["subject"]
    peer_name = (results["conditions"]["peer"] or {}).get("name", "")
    names = {"subject": "edged", "peer": peer_name}
    width = max(len(names[side]) for side in sides)
    most = max(each[side]["aggregate_tokens_per_s"] for each in rounds for side in sides)
    yield Text("answers of all clients, tokens/s, round by round", "bold")
    for number, each in enumerate(rounds, 1):
        for side in sides:
            speed = each[side]["aggregate_tokens_per_s"]
            bar = "█" * max(1, round(_BAR_COLUMNS * speed / most))
            line = Text(f"{number if side == 'subject' else '':>3}  {names[side]:<{width}}  ")
            line.append(bar, _COLOURS[side]).append(f" {_number(speed)}")
            if each["is_busy"]:
                line.append("  a core busy", "yellow")
            if side == "peer":
                ratio = each["subject"]["aggregate_tokens_per_s"] / speed
                line.append(f"  ÷ {_number(ratio)}", "dim")
            yield line


def _facts(results: dict[str, Any], columns: int) -> Iterator[Text]:
    for label, words in _sentences(results):
        lines = textwrap.wrap(words, max(columns - _LABEL_COLUMNS, 20))
        for number, line in enumerate(lines):
            yield Text(f"{label if number == 0 else '':<{_LABEL_COLUMNS}}{line}")
    if (points := results.get("operating_points")) is not None:
        yield from _points(points)


def _sentences(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if (ratio := results["ratio"]) is not None:
        words = f"{_spread(ratio)} of all clients' tokens/s, pair by pair; "
        words += f"{_spread(results['decode_ratio'])} of one client's"
        yield "ratio", words
    roofline = results["roofline"]
    if roofline["ratio"] is not None:
        memory = f"{roofline['read_bytes_per_s'] / 1e9:.1f} GB/s that this memory gives"
        step = f"reading {roofline['bytes_a_token'] / 1e6:,.0f} MB a step"
        yield "roofline", f"{roofline['ratio']:.2f} of the {memory}, {step}"
    if (added := results["added_first_token_ms"]) is not None:
        ways = f"{_number(added['before_ms'])} ms in, {_number(added['after_ms'])} ms out"
        yield "MQTT adds", f"{_spread(added)} ms to the first token: {ways}"
    if (contention := results.get("contention")) is not None:
        ours = _spread(contention["subject_busy_to_idle"])
        yield "busy core", f"leaves {ours} of edged's tokens/s of one client"
        if "peer" in contention:
            theirs = _spread(contention["peer_busy_to_idle"])
            ratio = _spread(contention["decode_ratio"])
            yield "", f"and {theirs} of the peer's; edged ÷ peer is then {ratio}"


def _points(points: dict[str, Any]) -> Iterator[Text]:
    yield Text()
    yield Text(f"{'threads':>7}  {'answering':>9}  {'reading':>9}  tokens/s", "bold")
    for each in points["points"]:
        decode, prefill = (_number(each[f"{name}_tokens_per_s"]) for name in ("decode", "prefill"))
        watts = f"  {each['watts']:.1f} W" if each["watts"] is not None else ""
        yield Text(f"{each['threads']:>7}  {decode:>9}  {prefill:>9}{watts}")
    yield Text(
        f"plans will take {points['threads_decode']} to answer and {points['threads_prefill']} to "
        "read, by"
    )
    yield Text(points["file"])


def draw(results: dict[str, Any], file: Path) -> None:
    """The rounds as a bar chart. Needs matplotlib; raises ``EdgedError`` if it cannot write."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    rounds = results["rounds"]
    figure, axes = pyplot.subplots(figsize=(8, 4))
    sides = {"subject": "edged"}
    if results["peer"] is not None:
        sides["peer"] = results["conditions"]["peer"]["name"]
    for offset, (side, name) in enumerate(sides.items()):
        places = [number + 0.4 * offset for number in range(len(rounds))]
        speeds = [each[side]["aggregate_tokens_per_s"] for each in rounds]
        axes.bar(places, speeds, 0.4, label=name)
    axes.set_xticks([number + 0.2 * (len(sides) - 1) for number in range(len(rounds))])
    axes.set_xticklabels(
        [f"{number}{' busy' if each['is_busy'] else ''}" for number, each in enumerate(rounds, 1)]
    )
    axes.set_xlabel("round")
    axes.set_ylabel("tokens/s of all clients")
    axes.set_title(results["conditions"]["model"])
    axes.legend()
    try:
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise EdgedError(f"{file} cannot be written: {error.strerror}") from None


def _at(figures: dict[str, Any], path: str) -> float | None:
    value: Any = figures
    for name in path.split("."):
        value = None if value is None else value[name]
    found: float | None = value
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _number(value: float | None) -> str:
    """Three digits, or all that stand before the point."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "–"
    least, middle, most = (_number(spread[name]) for name in ("min", "median", "max"))
    return f"{middle} ({least} to {most})"
