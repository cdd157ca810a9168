"""A worker with the bundled model, and what comes of its jobs."""

import os
from collections import defaultdict
from dataclasses import dataclass

from benchmarks.worker_process import WorkerProcess
from edged.engine.frames import Finished, Load, Piece, Refused, Submit
from edged.models.bundled import BUNDLED_MODEL

CTX = 1024
SLOTS = 4


@dataclass(frozen=True)
class Answer:
    """How a job ended; ``text`` is all that it said."""

    job: int
    text: str
    end: Finished | Refused


class Worker(WorkerProcess):
    """One worker that has loaded."""

    def __init__(self) -> None:
        threads = len(os.sched_getaffinity(0))
        super().__init__(Load("llama_cpp", str(BUNDLED_MODEL), "", CTX, SLOTS, threads, 0))
        self._texts: dict[int, str] = defaultdict(str)

    def submit(self, command: Submit) -> None:
        """Start a job; no more than there are slots."""
        self.send(command)

    def next_answer(self) -> Answer:
        """The job that ends next. Raises ``RuntimeError`` where the worker has ended."""
        while True:
            frame = self.receive()
            if isinstance(frame, Piece):
                self._texts[frame.job] += frame.text
            elif isinstance(frame, Refused):
                return Answer(frame.job, self._texts.pop(frame.job, ""), frame)
            elif isinstance(frame, Finished):
                return Answer(frame.job, self._texts.pop(frame.job, "") + frame.text, frame)
