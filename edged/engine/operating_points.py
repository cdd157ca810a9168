"""What `edged bench --save` measured here: speed and watts for each number of threads.

One file in the state directory, of the model that was measured last. Plans take the number of
threads from it for models of about that size; a copy of the file on another machine is ignored.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from edged.errors import ConfigError
from edged.models.plan import MeasuredThreads
from edged.models.whole import write_whole

_FILE: Final = "operating_points.toml"
_GOOD_ENOUGH: Final = 0.97
"""Fewer threads that are this fast leave the other cores to others, and draw less."""


class MeasuredPoint(BaseModel):
    """One number of threads; ``watts`` where the machine can be asked."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    threads: int = Field(ge=1, le=1024)
    decode_tokens_per_s: float = Field(ge=0)
    prefill_tokens_per_s: float = Field(ge=0)
    watts: float | None = Field(None, ge=0)


class OperatingPoints(BaseModel):
    """Of one machine with one model."""

    # An older edged, after a rollback, must be able to read what a newer one wrote.
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    measured_at: AwareDatetime
    model: str
    weights_bytes: int = Field(ge=1)
    machine: Mapping[str, str | int]
    points: tuple[MeasuredPoint, ...] = Field(min_length=1)

    @property
    def best(self) -> MeasuredThreads:
        """The fewest threads that are about as fast as the best, to answer and to read."""
        return MeasuredThreads(
            weights_bytes=self.weights_bytes,
            decode=_fewest({each.threads: each.decode_tokens_per_s for each in self.points}),
            prefill=_fewest({each.threads: each.prefill_tokens_per_s for each in self.points}),
        )


def _fewest(speeds: Mapping[int, float]) -> int:
    best = max(speeds.values())
    return min(threads for threads, speed in speeds.items() if speed >= _GOOD_ENOUGH * best)


def read_operating_points(
    state_dir: Path, machine: Mapping[str, str | int]
) -> OperatingPoints | None:
    """What was measured on this machine; nothing where there is no file that can be read."""
    try:
        text = (state_dir / _FILE).read_text("utf-8")
        points = OperatingPoints.model_validate(tomllib.loads(text))
    except (OSError, ValueError):  # those of TOML, UTF-8 and pydantic are values'
        return None
    return points if dict(points.machine) == dict(machine) else None


def write_operating_points(state_dir: Path, points: OperatingPoints) -> Path:
    """Where it is now. Raises ``ConfigError`` where it cannot be written."""
    path = state_dir / _FILE
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        write_whole(path, _toml(points))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; run this as the user that edged runs as"
        ) from None
    return path


def _toml(points: OperatingPoints) -> str:
    """Strings, numbers and moments are written in TOML as in JSON, but for the moment's quotes."""
    lines = [
        f"measured_at = {points.measured_at.isoformat(timespec='seconds')}",
        f"model = {_value(points.model)}",
        f"weights_bytes = {points.weights_bytes}",
        "",
        "[machine]",
        *(f"{name} = {_value(value)}" for name, value in points.machine.items()),
    ]
    for point in points.points:
        fields = point.model_dump(exclude_none=True)
        lines += ["", "[[points]]", *(f"{name} = {value}" for name, value in fields.items())]
    return "\n".join(lines)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
