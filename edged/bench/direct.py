"""The same engine with the same weights, called directly: what the daemon and MQTT cost."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from edged.bench.figures import Answer, Arrival
from edged.bench.sides import Child
from edged.engine.frames import Load
from edged.engine.handle import WORKER_ENVIRONMENT


class Direct:
    """``Side``: a process of ``edged.bench.direct_loop``."""

    name = "direct"

    def __init__(self, load: Callable[[], Load], folder: Path) -> None:
        """``load``: what edged's worker was told to load, once it was told."""
        self._load = load
        self._folder = folder
        self._child: Child | None = None
        self._engine: str | None = None

    @property
    def facts(self) -> Mapping[str, object]:
        return {"engine": self._engine}

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        self._child = Child(
            [sys.executable, "-m", "edged.bench.direct_loop"],
            self._folder / "direct.log",
            environment=WORKER_ENVIRONMENT | os.environ,  # as the worker is started
            piped=True,
        )
        self._child.write(json.dumps(asdict(self._load())))
        self._engine = json.loads(self._child.read("loading the model directly"))["engine"]

    def stop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def ask(
        self, prompts: Sequence[str], max_tokens: int, *, threads: int | None = None
    ) -> list[Answer]:
        """``threads``: for reading and answering, from now on."""
        assert self._child is not None
        order = {"prompts": list(prompts), "max_tokens": max_tokens, "threads": threads}
        self._child.write(json.dumps(order))
        reply = json.loads(self._child.read("the engine, called directly,"))
        return [
            Answer(
                asked_s=reply["began_s"],
                arrivals=tuple(Arrival(s, n) for n, s in enumerate(each["token_s"], 1)),
                done_s=each["token_s"][-1],
                prompt_tokens=each["prompt_tokens"],
                completion_tokens=len(each["token_s"]),
            )
            for each in reply["answers"]
        ]
