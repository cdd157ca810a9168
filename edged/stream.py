"""From pieces of text to the sequenced messages of one prompt's reply stream."""

import asyncio
import re

from edged.errors import PromptFailure
from edged.messages import (
    Accepted,
    Delta,
    Done,
    Failed,
    FinishReason,
    Prompt,
    Reply,
    ReplyMessage,
    Send,
    SessionUse,
    Timings,
    Usage,
    Waiting,
)

GROUP_S = 0.05
"""Tokens that come within this time share a message: 20 a second are plenty to watch."""

# A sentence ends at its mark (with what closes a quotation) before white space, or at a new line.
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]|\n+")


class ReplyStream:
    """Numbers and groups what one requester gets to see, and sends all but the terminal message."""

    def __init__(self, prompt: Prompt, send: Send, restarts: int = 0) -> None:
        self._prompt = prompt
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._seq = 1  # 0 is the acceptance's
        self.restarts = restarts
        self._text: list[str] = []
        self._pending = ""
        self._n = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._accepted: Reply | None = None
        self._held_back: list[Reply] = []
        self.last_sent_s = self._loop.time()
        """When the requester last heard of us, on the loop's clock."""
        self._last_delta_s = 0.0

    @property
    def is_accepted(self) -> bool:
        """Whether the requester was told so; before that it hears nothing else."""
        return self._accepted is not None

    def accept(self, accepted: Accepted) -> None:
        """Say that the prompt is kept and queued, and what of the answer has come meanwhile."""
        self._accepted = Reply(self._prompt.id, 0, self.restarts, accepted)
        self.repeat_accepted()
        for reply in self._held_back:
            self._send(reply)
        self._held_back.clear()
        if self._prompt.stream and self._prompt.chunk == "token":
            self._flush()
        elif self._prompt.stream:
            self._send_sentences()

    def repeat_accepted(self) -> None:
        """Say it once more, byte by byte the same, to someone who asked again."""
        if self._accepted is not None:
            self.last_sent_s = self._loop.time()
            self._send(self._accepted)

    def restart(self) -> None:
        """Forget what was answered: once accepted again, it is answered from the beginning."""
        self._stop_grouping()
        self.restarts += 1
        self._seq, self._n = 1, 0
        self._text.clear()
        self._held_back.clear()
        self._pending = ""
        self._last_delta_s = 0.0
        self._accepted = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    def add(self, text: str, n: int) -> None:
        """More of the answer; ``n`` tokens so far."""
        self._text.append(text)
        self._n = n
        if not self._prompt.stream:
            return
        self._pending += text
        if not self.is_accepted:
            return
        if self._prompt.chunk == "sentence":
            self._send_sentences()
        elif self._flush_timer is None:
            since_s = self._loop.time() - self._last_delta_s
            if since_s >= GROUP_S:
                self._flush()
            else:
                self._flush_timer = self._loop.call_later(GROUP_S - since_s, self._flush)

    def wait(self, waiting: Waiting) -> None:
        """A sign of life while nothing can be produced."""
        if self.is_accepted:
            self._emit(waiting)

    def finish(
        self,
        text: str,
        n: int,
        finish_reason: FinishReason,
        usage: Usage,
        timings: Timings,
        *,
        session: SessionUse | None = None,
    ) -> Reply:
        """Send the last of the text; returns the terminal message with all of it."""
        if text:
            self._text.append(text)
            self._pending += text
            self._n = n
        return self._close(
            Done(
                text=self.text if self._prompt.text_in_done else None,
                finish_reason=finish_reason,
                usage=usage,
                timings=timings,
                seed=self._prompt.sampling.seed,
                session=session,
            )
        )

    def fail(self, failure: PromptFailure) -> Reply:
        """The terminal message of an accepted prompt that cannot be answered."""
        return self._close(Failed.of(failure))

    def refuse(self, failure: PromptFailure) -> Reply:
        """The only message of a prompt that is not accepted."""
        self._stop_grouping()
        return Reply(self._prompt.id, 0, self.restarts, Failed.of(failure))

    def _close(self, terminal: Done | Failed) -> Reply:
        if self._prompt.stream and self._prompt.chunk == "sentence":
            self._send_sentences()
        if self._prompt.stream:
            self._flush()
        self._stop_grouping()
        return self._numbered(terminal)

    def _stop_grouping(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def _send_sentences(self) -> None:
        """Each in a message of its own, also where several have come together."""
        pending, end = self._pending, 0
        for match in _SENTENCE_END.finditer(pending):
            # The mark may be followed by more white space that has not come yet: harmless.
            self._emit_delta(pending[end : match.end()])
            end = match.end()
        self._pending = pending[end:]

    def _flush(self) -> None:
        self._flush_timer = None
        if self._pending:
            ready, self._pending = self._pending, ""
            self._emit_delta(ready)

    def _emit_delta(self, text: str) -> None:
        self._last_delta_s = self._loop.time()
        self._emit(Delta(text, self._n))

    def _emit(self, message: ReplyMessage) -> None:
        reply = self._numbered(message)
        if self.is_accepted:
            self.last_sent_s = self._loop.time()
            self._send(reply)
        else:  # the answer was there before the acceptance was on disk
            self._held_back.append(reply)

    def _numbered(self, message: ReplyMessage) -> Reply:
        reply = Reply(self._prompt.id, self._seq, self.restarts, message)
        self._seq += 1
        return reply
