"""What is simulated: a board in a case, the air around it, who asks, for how long."""

import re
from dataclasses import dataclass
from typing import Final

from edged.errors import ConfigError
from edged.hardware.profile import read_profile
from edged.hardware.twin import TwinBoard, twin_board
from edged.simulation.structures import STRUCTURES

_AMBIENT: Final = re.compile(r"-?\d+(\.\d+)?(:-?\d+(\.\d+)?@\d+(\.\d+)?)*")


@dataclass(frozen=True)
class Ambient:
    """The air's temperature, piecewise constant: from each second on, so many °C."""

    segments: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, text: str) -> "Ambient":
        """``22``, or ``22:40@30``: 22 °C until minute 30, then 40. Raises ``ConfigError``."""
        if not _AMBIENT.fullmatch(text):
            raise ConfigError(
                f"{text!r} is no ambient temperature; write 22, or 22:40@30 for 22 °C until "
                "minute 30 and 40 °C from then on"
            )
        first, *steps = text.split(":")
        segments = [(0.0, float(first))]
        for step in steps:
            celsius, _, minute = step.partition("@")
            segments.append((60 * float(minute), float(celsius)))
        if segments != sorted(segments, key=lambda segment: segment[0]):
            raise ConfigError(f"the minutes of {text!r} must rise")
        return cls(tuple(segments))

    def at(self, now_s: float) -> float:
        """In °C."""
        return next(celsius for from_s, celsius in reversed(self.segments) if from_s <= now_s)


@dataclass(frozen=True)
class Scenario:
    """All but the policy; ``structure`` is that of the simulated board (``STRUCTURES``)."""

    profile: str = "pi5-8gb"
    case: str = "bare"
    ambient: str = "22"
    workload: str = "steady"
    minutes: float = 60.0
    seed: int = 0
    has_clock: bool = True
    """Whether the cap on the clock may be set."""
    structure: str = "assumed"

    def board(self) -> TwinBoard:
        """The board to simulate. Raises ``ConfigError``."""
        return STRUCTURES[self.structure](twin_board(read_profile(self.profile), self.case))
