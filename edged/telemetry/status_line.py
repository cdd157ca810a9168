"""A node's state in one line, for ``systemctl status``."""

from collections.abc import Mapping
from typing import Any, Final

_DOING: Final = {
    "loading": "loading the model",
    "serving": "serving",
    "switching": "switching to another model",
    "unloaded": "model unloaded",
    "refused": "model not served",
}


def status_line(state: Mapping[str, Any], model: str | None) -> str:
    """``state`` as ``edged.telemetry.presence.state`` makes it; ``model`` is what serves."""
    parts = [_what(state, model), _work(state)]
    if state["temperature_c"] is not None:
        limit = "" if state["limit_c"] is None else f" of {state['limit_c']:g}"
        parts.append(f"{state['temperature_c']:g}{limit} °C")
    parts += [f"fault: {fault}" for fault in state["faults"]]
    return "; ".join(parts)


def _what(state: Mapping[str, Any], model: str | None) -> str:
    doing = _DOING.get(state["model_state"], state["model_state"])
    if model is not None and state["model_state"] == "serving":
        doing = f"serving {model}"
    reason = f" ({state['reason']})" if state["reason"] else ""
    return f"{state['level']}, {doing}{reason}"


def _work(state: Mapping[str, Any]) -> str:
    active, queued = state["active"], state["queued"]
    if not active and not queued:
        return "idle"
    speed = f" at {state['tokens_per_s']:.1f} tokens/s" if active else ""
    return f"{active} answered{speed}, {queued} waiting"
