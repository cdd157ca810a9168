"""What a node says of itself: the retained card (what it is) and state (how it is doing)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edged
from edged.engine.frames import Ready
from edged.engine.plan_frames import Answer
from edged.hardware.machine import device_name
from edged.hardware.memory import status_bytes
from edged.messages import Level, Reading

FEATURES = ("chunk_sentence", "deadline_s", "priority", "seed", "session", "stop")
MEASURED = ("temperature_c", "forecast_c", "fan_rpm", "clock_mhz", "watts")
ENGINE_FEATURES = {"llama_cpp": ("json_object", "json_schema")}


@dataclass(frozen=True)
class Condition:
    """How the board is doing, as the governor knows it."""

    level: Level = "nominal"
    reason: str | None = None
    sensor: str | None = None
    limit_c: float | None = None
    forecast_c: float | None = None
    reading: Reading | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Activity:
    """What the daemon knows of the moment; ``since_s`` is Unix time."""

    condition: Condition
    model_state: str
    reason: str | None
    since_s: float
    eta_s: float | None
    queued: int
    active: int
    tokens_per_s: float
    worker_pid: int | None
    ready: Ready | None
    needed_bytes: int | None
    faults: tuple[str, ...]


def card(
    node: str,
    ready: Ready | None,
    decode_tokens_per_s: float | None,
    profile: str | None,
    planned: Answer | None,
    *,
    pools: Sequence[str] = (),
) -> dict[str, Any]:
    """The card; what needs a loaded model is ``None`` until there is one."""
    load = planned.load if planned and ready else None
    return {
        "node": node,
        "version": edged.__version__,
        "device": device_name(),
        "profile": profile,
        "engine": ready.engine if ready else None,
        "model": ready.model if ready else None,
        "quant": ready.quantisation if ready else None,
        "ctx": ready.ctx if ready else None,
        "slots": ready.slots if ready else None,
        "kv_type": load.kv_type if load else None,
        "gpu_layers": load.gpu_layers if load else None,
        "rope": planned.rope if planned and ready else None,
        "fallbacks": list(planned.steps) if planned and ready else [],
        "decode_tokens_per_s": decode_tokens_per_s,
        "features": [*FEATURES, *ENGINE_FEATURES.get(ready.engine if ready else "", ())],
        "pools": list(pools),
    }


def state(activity: Activity) -> dict[str, Any]:
    """The state: figures that the machine does not give are ``None``."""
    ready, condition = activity.ready, activity.condition
    reading = condition.reading or Reading(0.0)
    memory = reading.memory
    return {
        "level": condition.level,
        "reason": condition.reason or activity.reason,
        "since": round(activity.since_s, 3),
        "eta_s": activity.eta_s,
        "sensor": condition.sensor,
        "temperature_c": _rounded(reading.temperature_c),
        "limit_c": condition.limit_c,
        "forecast_c": condition.forecast_c,
        "fan_rpm": reading.fan_rpm,
        "clock_mhz": _rounded(reading.clock_mhz),
        "watts": _rounded(reading.watts),
        "memory": {
            "available_bytes": memory.available_bytes if memory else None,
            "total_bytes": memory.total_bytes if memory else None,
            "stalled_share": memory.stalled_share if memory else None,
            "needed_bytes": activity.needed_bytes,
            "worker_bytes": resident_bytes(activity.worker_pid),
            "weights_bytes": ready.weights_bytes if ready else None,
            "kv_cache_bytes": ready.kv_cache_bytes if ready else None,
        },
        "queued": activity.queued,
        "active": activity.active,
        "tokens_per_s": round(activity.tokens_per_s, 2),
        "model_state": activity.model_state,
        "faults": list(activity.faults),
    }


def changed(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Whether a state differs in more than what always moves a little."""
    moving = {"memory", "tokens_per_s", "eta_s", *MEASURED}
    return before is None or any(before[key] != after[key] for key in after if key not in moving)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def resident_bytes(pid: int | None, root: Path = Path("/")) -> int | None:
    """Resident memory of a process; ``None`` when it is gone."""
    return None if pid is None else status_bytes(pid, "VmRSS", root=root) or None
