"""Prompts that run, a queue that is full, and a flood that is refused; or that nobody reads."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bus import ROOT, Client, Node
from benchmarks.soak.processes import processes

SLOTS, QUEUE = 4, 64
CLIENTS = 20
NOBODY = "nobody"
FLOODED, UNREAD = "flooded", "unread"
PATIENCE_S = 120.0
SETTLE_S = 1.0


@dataclass(frozen=True)
class Window:
    """What was seen while the generator published, for one of the two targets."""

    target: str
    flood: dict[str, Any]
    tokens_per_s: float
    daemon_cpu_s: float
    worker_cpu_s: float

    @property
    def refused(self) -> int:
        """With ``queue_full``."""
        return int(self.flood["answers"].get("queue_full", 0))


@dataclass
class Flooding:
    """All windows, in their order."""

    windows: list[Window] = field(default_factory=list)

    def of(self, target: str) -> list[Window]:
        """Those of one target."""
        return [window for window in self.windows if window.target == target]

    @property
    def ratios(self) -> list[float]:
        """Tokens a second while flooded ÷ while nobody read it, pair by pair."""
        pairs = zip(self.of(FLOODED), self.of(UNREAD), strict=True)
        return [flooded.tokens_per_s / unread.tokens_per_s for flooded, unread in pairs]

    @property
    def refusal_ms(self) -> list[float]:
        """Processor time that the daemon takes more for each refused prompt, pair by pair."""
        return [
            1000 * (flooded.daemon_cpu_s - unread.daemon_cpu_s) / max(1, flooded.refused)
            for flooded, unread in zip(self.of(FLOODED), self.of(UNREAD), strict=True)
        ]

    @property
    def unanswered(self) -> int:
        """Prompts to which nothing was said."""
        return sum(window.flood["unanswered"] for window in self.of(FLOODED))

    @property
    def strange(self) -> dict[str, int]:
        """Answers that are neither a refusal with ``queue_full`` nor an acceptance."""
        found: dict[str, int] = {}
        for window in self.of(FLOODED):
            for answer, count in window.flood["answers"].items():
                if answer not in ("queue_full", "accepted"):
                    found[answer] = found.get(answer, 0) + count
        return found


class Runner:
    """Keeps the slots and the queue full of long answers, and counts their tokens."""

    def __init__(self, port: int, node: str, max_tokens: int) -> None:
        self._node, self._max_tokens = node, max_tokens
        self._count = 0
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._tokens: dict[str, int] = {}
        self._began_s = 0.0
        self._counted = 0
        self._client = Client(port, self._receive)
        self._client.subscribe(f"{ROOT}/{node}/completion/runner/+")

    def close(self) -> None:
        """Leave the broker."""
        self._client.close()

    def fill(self) -> None:
        """Until the queue is full. Raises ``RuntimeError`` where nothing runs within patience."""
        until_s = time.monotonic() + PATIENCE_S
        while not self._heard.empty():  # of those that were asked again when others had ended
            self._heard.get()
        while True:
            self._ask()
            try:
                if self._heard.get(timeout=max(0.1, until_s - time.monotonic())) == "queue_full":
                    return
            except queue.Empty:
                raise RuntimeError("the queue cannot be filled") from None

    def wait_until_running(self) -> None:
        """Until every slot answers. Raises ``RuntimeError`` where they do not."""
        until_s = time.monotonic() + PATIENCE_S
        while len(self._tokens) < SLOTS:
            if time.monotonic() > until_s:
                raise RuntimeError(f"{len(self._tokens)} of {SLOTS} prompts run")
            time.sleep(0.1)

    def begin(self) -> None:
        """Count from now on."""
        with self._lock:
            self._began_s, self._counted = time.monotonic(), 0

    def tokens_per_s(self) -> float:
        """Of all streams, since ``begin``."""
        with self._lock:
            return self._counted / (time.monotonic() - self._began_s)

    def _ask(self) -> None:
        self._count += 1
        body = {"id": str(self._count), "prompt": f"Tell me all about number {self._count}."}
        body |= {"max_tokens": self._max_tokens, "temperature": 2.0, "top_k": 0, "top_p": 1.0}
        body |= {"min_p": 0.0, "seed": self._count}
        self._client.publish(f"{ROOT}/{self._node}/prompt/runner", body)

    def _receive(self, _topic: str, payload: bytes) -> None:
        reply = json.loads(payload)
        if reply["type"] == "delta":
            with self._lock:
                self._counted += reply["n"] - self._tokens.get(reply["id"], 0)
                self._tokens[reply["id"]] = reply["n"]
        elif reply["type"] == "accepted":
            self._heard.put("accepted")
        elif reply["type"] == "failed":
            self._heard.put(reply["code"])
        elif reply["type"] == "done":
            with self._lock:
                self._tokens.pop(reply["id"], None)
            self._ask()  # its place in the queue is free again


@contextlib.contextmanager
def generator(port: int, node: str, per_minute: float) -> Iterator["subprocess.Popen[str]"]:
    """The process that floods, connected."""
    arguments = (str(port), node, str(CLIENTS), str(per_minute))
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.flood.generator", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        yield process  # it ends with its standard input


def flood(
    port: int,
    node: Node,
    *,
    pairs: int,
    seconds: float,
    per_minute: float,
    max_tokens: int,
    pin: Callable[[int], None] = lambda _pid: None,
    look: Callable[[str], None] = lambda _: None,
) -> Flooding:
    """Pairs of windows in turns. ``pin`` is given the process id of the generator.

    Raises ``RuntimeError`` where the prompts do not run, or the generator ends.
    """
    found = Flooding()
    with (
        contextlib.closing(Runner(port, node.name, max_tokens)) as runner,
        generator(port, node.name, per_minute) as process,
    ):
        pin(process.pid)
        for pair in range(pairs):
            order = (UNREAD, FLOODED) if pair % 2 else (FLOODED, UNREAD)
            for target in order:
                runner.fill()  # where answers are short, the flood has taken places in between
                runner.wait_until_running()
                time.sleep(SETTLE_S)
                look(f"pair {pair + 1} of {pairs}: {target}")
                found.windows.append(_window(target, node, runner, process, seconds))
    return found


def _window(
    target: str,
    node: Node,
    runner: Runner,
    process: "subprocess.Popen[str]",
    seconds: float,
) -> Window:
    assert process.stdin is not None
    assert process.stdout is not None
    before = _cpu_s(node.pid)
    runner.begin()
    process.stdin.write(f"{node.name if target == FLOODED else NOBODY} {seconds}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    tokens_per_s = runner.tokens_per_s()
    after = _cpu_s(node.pid)
    if not line:
        raise RuntimeError("the generator has ended")
    return Window(
        target,
        json.loads(line),
        tokens_per_s,
        after["daemon"] - before["daemon"],
        after["worker"] - before["worker"],
    )


def _cpu_s(pid: int) -> dict[str, float]:
    return {name: process.cpu_s for name, process in processes(pid).items()}
