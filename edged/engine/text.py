"""From the bytes of tokens to text that may be shown.

Two things are held back until they are decided: bytes that are not yet a whole code
point, and text that may turn out to be the beginning of a stop sequence.
"""

import codecs


class TextStream:
    """The text of one answer as it grows; what was returned is never taken back."""

    def __init__(self, stop: tuple[str, ...], *, strip_leading_space: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = stop
        self._strip_leading_space = strip_leading_space
        self._held = ""
        self.stopped = False
        """A stop sequence was met; it and what follows it are not part of the answer."""

    def feed(self, data: bytes) -> str:
        """Take the bytes of one token; return what can be shown now, perhaps nothing."""
        return self._take(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back: an unfinished code point becomes U+FFFD."""
        text = self._take(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _take(self, text: str) -> str:
        if self.stopped or not text:
            return ""
        if self._strip_leading_space:
            self._strip_leading_space = False
            text = text.removeprefix(" ")
        self._held += text
        # The one complete first counts, as if the characters had come one by one.
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` begin ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
