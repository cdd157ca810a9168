"""Who asks what, and when: prompts in virtual time, the same for the same seed."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from edged.errors import ConfigError

VOICE_PRIORITY: Final = 1


@dataclass(eq=False)
class Job:
    """A prompt on its way: tokens that are left to read and to answer.

    ``is_awaited``: somebody waits for its first token.
    """

    asked_s: float
    unread: float
    unanswered: float
    priority: int = 0
    is_awaited: bool = True


class Source(Protocol):
    """Somebody who asks."""

    def next_s(self) -> float:
        """When the next prompt will be asked; infinite while it waits for an answer."""

    def ask(self) -> Job:
        """The next prompt; only at its time."""

    def ended(self, job: Job, now_s: float) -> None:
        """One of its prompts has been answered."""

    @property
    def backlog(self) -> int:
        """Prompts that wait behind the one that is being answered, unseen by ``next_s``."""


@dataclass
class Loop:
    """Asks the next prompt a pause after the answer to the last one."""

    prompt_tokens: int
    answer_tokens: int
    pauses_s: tuple[float, float] = (0.0, 0.0)
    is_awaited: bool = True
    seed: int = 0
    _next_s: float = 0.0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def next_s(self) -> float:
        return self._next_s

    def ask(self) -> Job:
        asked_s, self._next_s = self._next_s, math.inf
        return Job(asked_s, self.prompt_tokens, self.answer_tokens, is_awaited=self.is_awaited)

    def ended(self, job: Job, now_s: float) -> None:  # noqa: ARG002 (has but one)
        self._next_s = now_s + self._random.uniform(*self.pauses_s)

    @property
    def backlog(self) -> int:
        return 0 if self.pauses_s[1] else 1


@dataclass
class Arrivals:
    """Asks at its own times, whatever became of the prompts before."""

    prompt_tokens: int
    answer_tokens: int
    gaps_s: tuple[float, float]
    priority: int = 0
    seed: int = 0
    _next_s: float = field(init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._next_s = self._random.uniform(*self.gaps_s)

    def next_s(self) -> float:
        return self._next_s

    def ask(self) -> Job:
        asked_s = self._next_s
        self._next_s += self._random.uniform(*self.gaps_s)
        return Job(asked_s, self.prompt_tokens, self.answer_tokens, self.priority)

    def ended(self, job: Job, now_s: float) -> None:
        """It does not wait for answers."""

    @property
    def backlog(self) -> int:
        return 0


def _steady(seed: int) -> tuple[Source, ...]:  # noqa: ARG001 (nothing in it is random)
    return (Loop(256, 256),)


def _voice(seed: int) -> tuple[Source, ...]:
    return (Arrivals(60, 40, (60.0, 120.0), VOICE_PRIORITY, seed),)


def _mixed(seed: int) -> tuple[Source, ...]:
    background = Loop(1500, 400, (20.0, 120.0), is_awaited=False, seed=seed + 1)
    return (background, *_voice(seed))


WORKLOADS: Final[dict[str, Callable[[int], tuple[Source, ...]]]] = {
    "steady": _steady,
    "voice": _voice,
    "mixed": _mixed,
}


def sources_of(workload: str, seed: int) -> tuple[Source, ...]:
    """Those of a workload, at its beginning. Raises ``ConfigError`` if it is not known."""
    if workload not in WORKLOADS:
        raise ConfigError(f"there is no workload {workload}; known are: {', '.join(WORKLOADS)}")
    return WORKLOADS[workload](seed)
