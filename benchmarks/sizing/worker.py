"""A worker that fills its contexts, and what the kernel says of its memory."""

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.worker_process import WorkerProcess
from edged.engine.frames import Finished, Load, Refused, Submit
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


class Worker(WorkerProcess):
    """One worker with one model."""

    def __init__(self, load: Load) -> None:
        super().__init__(load, ("-c", WHOLE_BATCHES))

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
            self.send(
                Submit(
                    job,
                    (ChatMessage("user", text),),
                    Sampling(ANSWER_TOKENS, 0.0, 1, 1.0, 0.0, 1.0, seed=1),
                    client=f"client-{job}",
                )
            )
        return [self._next_end() for _ in range(self.ready.slots)]

    def _next_end(self) -> Finished | Refused:
        while not isinstance(frame := self.receive(), Finished | Refused):
            pass
        return frame

    def resident(self) -> Resident:
        """See ``Resident``."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")

        def size(name: str) -> int:
            found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
            return int(found[1]) * 1024 if found else 0

        return Resident(size("VmHWM"), size("RssAnon"), size("RssFile"))
