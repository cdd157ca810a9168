"""One prompt on its way through the engine, from its slot to its end."""

from dataclasses import dataclass, field

from edged.engine.frames import Finished, Submit
from edged.engine.lookup import Lookup
from edged.engine.prefixes import Held
from edged.engine.protocol import Grammar
from edged.engine.sampling import Sampler
from edged.engine.text import TextStream
from edged.messages import FinishReason


@dataclass(frozen=True)
class Waiting:
    """A prompt that has no slot yet."""

    command: Submit
    prompt: list[int]

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts those first whose turn it is: the highest priority, then the oldest."""
        return (-self.command.priority, self.command.job)


@dataclass
class Run:
    """A prompt that is being read or answered; ``held`` is what the engine holds of both."""

    job: int
    rank: tuple[int, int]
    prompt: list[int]
    held: Held
    sampler: Sampler
    text: TextStream
    max_tokens: int
    grammar: Grammar | None
    cached_tokens: int
    lookup: Lookup
    answer: list[int] = field(default_factory=list)
    ends: FinishReason | None = None
    prefill_s: float = 0.0
    decode_s: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def is_answering(self) -> bool:
        """Whether the prompt has been read."""
        return bool(self.answer)

    @property
    def unread(self) -> list[int]:
        """What of the prompt is still to be read."""
        return self.prompt[len(self.held.tokens) :]

    def finished(self) -> Finished:
        """The frame that ends it; ``ends`` is known."""
        assert self.ends is not None
        return Finished(
            job=self.job,
            text=self.text.finish(),
            finish_reason=self.ends,
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached_tokens,
            completion_tokens=len(self.answer),
            prefill_s=self.prefill_s,
            decode_s=self.decode_s,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
        )
