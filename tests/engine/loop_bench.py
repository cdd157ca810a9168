"""A step loop on a bench: over an engine without weights, with all that it says and does noted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from edged.engine.costs import StepCosts
from edged.engine.echo import EchoEngine
from edged.engine.frames import Finished, Load, Piece, Refused, Submit, Up
from edged.engine.protocol import BatchChunk, Picker
from edged.engine.step_loop import Gate, StepLoop
from edged.errors import EngineFailed
from edged.messages import ChatMessage, Sampling

# <s> <|user|> … <|end|> <|assistant|>
FORMAT_TOKENS = 4


def submit(
    job: int,
    text: str,
    *,
    client: str = "",
    priority: int = 5,
    grammar: str | None = None,
    before: tuple[ChatMessage, ...] = (),
    **sampling: Any,
) -> Submit:
    """A prompt that says ``text``, ``before`` it what was said already."""
    wanted = {
        "max_tokens": 2000,
        "temperature": 0,
        "top_k": 0,
        "top_p": 1,
        "min_p": 0,
        "repeat_penalty": 1,
        "seed": 1,
    } | sampling
    messages = (*before, ChatMessage("user", text))
    return Submit(job, messages, Sampling(**wanted), client, priority, grammar)


class Breaks(EchoEngine):
    """Fails as native code does: in ``decode`` or in ``sample``, once it is told to."""

    decoding = sampling = False

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        if self.decoding:
            raise EngineFailed("decode returned -3")
        super().decode(batch)

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        if self.sampling:
            raise EngineFailed("no number")
        return super().sample(sequence, picker, row)


@dataclass
class Bench:
    """A step loop, what it emitted, and the batches that its engine saw."""

    engine: EchoEngine
    gate: Gate | None = None
    costs: StepCosts | None = None
    system_prompt: str | None = None
    speculates: bool = True
    emitted: list[Up] = field(default_factory=list)
    batches: list[list[BatchChunk]] = field(default_factory=list)

    def __post_init__(self) -> None:
        decode = self.engine.decode

        def watched(batch: Sequence[BatchChunk]) -> None:
            self.batches.append(list(batch))
            decode(batch)

        self.engine.decode = watched  # type: ignore[method-assign]
        self.loop = StepLoop(
            self.engine,
            self.emitted.append,
            gate=self.gate,
            costs=self.costs,
            system_prompt=self.system_prompt,
            speculates=self.speculates,
        )

    def run(self, *commands: Submit) -> None:
        """Take the commands, then step until there is nothing left to do."""
        for command in commands:
            self.loop.submit(command)
        for _ in range(10_000):
            if self.loop.idle:
                return
            self.loop.step()
        pytest.fail("the loop does not come to an end")

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.step()

    def text(self, job: int) -> str:
        """All of a job's text, from its pieces and its end."""
        return "".join(
            frame.text
            for frame in self.emitted
            if isinstance(frame, Piece | Finished) and frame.job == job
        )

    def finished(self, job: int) -> Finished:
        (frame,) = (f for f in self.emitted if isinstance(f, Finished) and f.job == job)
        return frame

    def refused(self, job: int) -> Refused:
        (frame,) = (f for f in self.emitted if isinstance(f, Refused) and f.job == job)
        return frame

    @property
    def ended(self) -> list[int]:
        """The jobs that have ended, in that order."""
        return [frame.job for frame in self.emitted if isinstance(frame, Finished | Refused)]


def bench(
    slots: int = 1,
    ctx: int | None = None,
    kind: type[EchoEngine] = EchoEngine,
    *,
    cells: int | None = None,
    **how: Any,
) -> Bench:
    return Bench(kind(Load("echo", None, "", ctx, slots, 1, 0, cells=cells)), **how)
