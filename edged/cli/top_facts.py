"""What nodes say of themselves, for ``edged top``: made safe to show, and put into words."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from edged.cli.bus import Node

MOST_CHARACTERS: Final = 160
"""Of one fact, in the view that has the most room."""
SILENT_S: Final = 30.0
"""After three missed messages of an online node, what it last said is old."""

_MOST: Final = 1e15
_GIB: Final = 2**30
_NO_TEXT: Final = ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")
_NEAR_C: Final = 5.0
_LEVEL_STYLES: Final = {
    "nominal": "bold green",
    "trimmed": "bold cyan",
    "throttled": "bold yellow",
    "paused": "bold red",
}
_MODEL_STYLES: Final = {"serving": "green", "refused": "bold red"}


@dataclass(frozen=True)
class Sample:
    """A temperature that was seen at ``at_s`` (Unix time); ``None`` where the node gave none."""

    at_s: float
    temperature_c: float | None


def number(value: object) -> float | None:
    """A number that can be reckoned with; else ``None``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # False for NaN and infinity, and an integer of a thousand digits is no float.
    return float(value) if -_MOST < value < _MOST else None


def words(value: object, most: int = MOST_CHARACTERS) -> str:
    """A text as one line of at most so many characters, without any that steer a terminal."""
    if not isinstance(value, str):
        return ""
    kept = (
        " " if category in _NO_TEXT else character
        for character in value[: 4 * most]
        if (category := unicodedata.category(character)) != "Cf"
    )
    line = " ".join("".join(kept).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def sized(memory: Mapping[str, Any], name: str) -> float | None:
    """A size in bytes; ``None`` where there is none, or none that can be."""
    value = number(memory.get(name))
    return value if value is not None and value >= 0 else None


def mapping(value: object) -> Mapping[str, Any]:
    """What should be an object; empty where it is none."""
    return value if isinstance(value, dict) else {}


def span(seconds: float) -> str:
    """How long, in the one or two units that matter."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def size(size_bytes: float) -> str:
    """In the unit that fits."""
    return f"{size_bytes / _GIB:.1f} GiB" if size_bytes >= _GIB else f"{size_bytes / 2**20:.0f} MiB"


def heat_style(temperature_c: float, limit_c: float | None) -> str:
    """Near its limit is a warning, above it worse; without a limit nobody knows."""
    if limit_c is None:
        return "cyan"
    if temperature_c >= limit_c:
        return "bold red"
    return "yellow" if temperature_c >= limit_c - _NEAR_C else "green"


def status_text(node: Node) -> str:
    """What the broker retains of its presence."""
    return words(node.status, 20) or "unknown"


def level_text(state: Mapping[str, Any], now_s: float) -> Text:
    """How hard it may work, for how long now, and why."""
    level = words(state.get("level"), 20) or "unknown"
    text = Text().append(level, _LEVEL_STYLES.get(level, "bold"))
    if (since_s := number(state.get("since"))) is not None:
        text.append(f" for {span(now_s - since_s)}")
    if reason := words(state.get("reason")):
        text.append(f": {reason}")
    return text


def silence_text(samples: Sequence[Sample], now_s: float) -> Text | None:
    """That it has not been heard for too long; else ``None``."""
    silent_s = now_s - samples[-1].at_s if samples else 0.0
    return Text(f"nothing heard for {span(silent_s)}", "yellow") if silent_s > SILENT_S else None


def degrees_text(temperature_c: float, state: Mapping[str, Any], forecast: str, limit: str) -> Text:
    """The temperature, and what it will be and may be, where that is known."""
    limit_c = number(state.get("limit_c"))
    text = Text().append(f"{temperature_c:.1f} °C", heat_style(temperature_c, limit_c))
    if (forecast_c := number(state.get("forecast_c"))) is not None:
        text.append(forecast).append(f"{forecast_c:.1f} °C", heat_style(forecast_c, limit_c))
    return text.append(f"{limit}{limit_c:g} °C" if limit_c is not None else "")


def prompts_text(state: Mapping[str, Any]) -> str:
    """How much there is to do, and how fast it goes."""
    active, queued = (_count(number(state.get(name))) for name in ("active", "queued"))
    speed = number(state.get("tokens_per_s"))
    said = "–" if speed is None else f"{speed:.1f}"
    return f"{active} active, {queued} waiting, {said} tokens/s"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def model_text(node: Node) -> Text:
    """What the model is doing, and which it is; empty where nothing is known."""
    said = words(node.state.get("model_state"), 20)
    text = Text().append(said, _MODEL_STYLES.get(said, "yellow"))
    name = model_name(node.card)
    return text.append(f" {name}" if said and name else name)


def model_name(card: Mapping[str, Any]) -> str:
    """Without its quantisation where none is given; empty for no model."""
    name, quant = words(card.get("model"), 60), words(card.get("quant"), 20)
    return f"{name} ({quant})" if name and quant else name


def faults_text(state: Mapping[str, Any]) -> Text | None:
    """All faults in one line; ``None`` where there are none."""
    given = state.get("faults")
    faults = [words(each) for each in given] if isinstance(given, list) else []
    return Text(words("; ".join(filter(None, faults))), "red") if any(faults) else None
