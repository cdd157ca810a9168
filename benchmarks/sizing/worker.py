"""A real worker process, spoken to as the daemon does, and what the kernel says of its memory."""

import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.engine.frames import (
    LENGTH,
    Down,
    Finished,
    Frame,
    Load,
    LoadFailed,
    Ready,
    Refused,
    Submit,
    decode,
    encode,
)
from edged.messages import ChatMessage, Sampling

# The worker, but for how much of a prompt it reads in one step: as much as a batch holds, not what
# takes 250 ms. It touches all of the scratch memory, and long contexts fill several times faster.
WHOLE_BATCHES = """
from edged.engine import batching, worker
from edged.models.configuration import MAX_BATCH_TOKENS
batching.chunk_tokens = lambda costs, chunk_s: MAX_BATCH_TOKENS
worker.main()
"""
ANSWER_TOKENS = 8
TEMPLATE_TOKENS = 16


@dataclass(frozen=True)
class Resident:
    """A process's memory in bytes; ``peak`` is the kernel's high-water mark of all of it."""

    peak: int
    anonymous: int
    file: int


class Worker:
    """One worker with one model."""

    def __init__(self, load: Load) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WHOLE_BATCHES, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stderr=subprocess.DEVNULL,
            )
        self._socket = ours
        self._reader = ours.makefile("rb")
        self._send(load)
        self.ready = self._wait(Ready)

    def fill_contexts(self) -> int:
        """Let every slot read and answer until its context is full; tokens that were filled.

        Each is another client's, so that none starts from what another has read.
        """
        text = "a b c d " * self.ready.ctx
        while (ends := self._ask(text)) and isinstance(end := ends[0], Refused):
            # What the chat template adds to the text does not shrink with it.
            wanted = self.ready.ctx - ANSWER_TOKENS - TEMPLATE_TOKENS
            text = text[: int(len(text) * wanted / int(end.details["prompt_tokens"] or 1))]
        return sum(
            end.prompt_tokens + end.completion_tokens for end in ends if isinstance(end, Finished)
        )

    def _ask(self, text: str) -> list[Finished | Refused]:
        """How a prompt in every slot ended."""
        for job in range(self.ready.slots):
            self._send(
                Submit(
                    job,
                    (ChatMessage("user", text),),
                    Sampling(ANSWER_TOKENS, 0.0, 1, 1.0, 0.0, 1.0, seed=1),
                    client=f"client-{job}",
                )
            )
        return [self._wait(Finished, Refused) for _ in range(self.ready.slots)]

    def resident(self) -> Resident:
        """See ``Resident``."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")

        def size(name: str) -> int:
            found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
            return int(found[1]) * 1024 if found else 0

        return Resident(size("VmHWM"), size("RssAnon"), size("RssFile"))

    def close(self) -> None:
        """The worker ends with its socket."""
        self._reader.close()
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _send(self, frame: Down) -> None:
        self._socket.sendall(encode(frame))

    def _wait(self, *kinds: type[Frame]) -> Frame:
        while True:
            head = self._reader.read(LENGTH.size)
            if len(head) < LENGTH.size:
                raise RuntimeError(f"the worker ended with exit code {self._process.wait()}")
            frame = decode(self._reader.read(LENGTH.unpack(head)[0]))
            if isinstance(frame, LoadFailed):
                raise RuntimeError(frame.error)  # noqa: TRY004 (a frame, not an argument)
            if isinstance(frame, kinds):
                return frame


@contextlib.contextmanager
def running(load: Load) -> Iterator[Worker]:
    """A worker that has loaded, ended when the block ends."""
    worker = Worker(load)
    try:
        yield worker
    finally:
        worker.close()
