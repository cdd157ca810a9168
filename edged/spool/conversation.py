"""What of a session's turns goes into a prompt, and what is kept of it afterwards."""

from collections.abc import Sequence

from edged.messages import ChatMessage, Prompt, SessionUse, Usage
from edged.settings import SessionSettings
from edged.spool.sessions import NewTurn, Turn, fitting

ANSWER_SHARE = 4
"""Room is kept for the answer, but no more than a part of the context one over this."""
BYTES_PER_TOKEN = 3
"""A guess to begin with (Phi-3's tokens of English text are 3 to 4); the engine counts."""


class Conversation:
    """Of one prompt that belongs to a session."""

    def __init__(
        self, prompt: Prompt, kept: Sequence[Turn], limits: SessionSettings, ctx: int
    ) -> None:
        self._prompt = prompt
        self._kept = kept
        size_bytes = sum(len(message.content.encode()) for message in prompt.messages)
        answer = min(prompt.sampling.max_tokens, ctx // ANSWER_SHARE)
        room = ctx - answer - size_bytes // BYTES_PER_TOKEN
        self._used = [] if prompt.session_reset else fitting(kept, limits, room)

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """The system's message, the turns before, and what is asked now."""
        asked = self._prompt.messages
        system = 1 if asked[0].role == "system" else 0
        before = tuple(message for turn in self._used for message in turn.said)
        return (*asked[:system], *before, *asked[system:])

    def shorten(self, excess_tokens: int) -> bool:
        """Let the oldest turns leave, at least one; whether there was any."""
        had_any = bool(self._used)
        while self._used:
            excess_tokens -= self._used.pop(0).tokens
            if excess_tokens <= 0:
                break
        return had_any

    @property
    def use(self) -> SessionUse:
        """What the conversation holds once this prompt is answered."""
        return SessionUse(turns=len(self._used) + 1, left=len(self._kept) - len(self._used))

    def new_turn(self, number: int, answer: str, usage: Usage) -> NewTurn:
        """What is to be kept of this prompt and its answer."""
        assert self._prompt.session is not None
        said = tuple(message for message in self._prompt.messages if message.role != "system")
        before = sum(turn.tokens for turn in self._used)
        tokens = max(1, usage.prompt_tokens + usage.completion_tokens - before)
        return NewTurn(
            self._prompt.client,
            self._prompt.session,
            Turn(number, (*said, ChatMessage("assistant", answer)), tokens),
            since=self._used[0].number if self._used else number,
        )
