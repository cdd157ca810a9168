"""The soak itself: clients, a listener and a look at the processes every ten seconds."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

from benchmarks.bus import Node
from benchmarks.soak.clients import PATIENCE_S, Listener, Place, SoakClient
from benchmarks.soak.ledger import Entry, Ledger
from benchmarks.soak.processes import Process, processes
from benchmarks.soak.requests import (
    CTX,
    SLOTS,
    SYSTEM_PROMPT,
    TEMPERATURE_LIMIT,
    json_object,
    rambling,
)

SETTINGS: dict[str, object] = {
    "engine__name": "llama_cpp",
    "engine__slots": SLOTS,
    "engine__ctx": CTX,
    "chat__system_prompt": SYSTEM_PROMPT,
    "sampling__temperature_limit": TEMPERATURE_LIMIT,
}
"""Of the daemon, named as ``benchmarks.bus.daemon`` wants them."""

NAMES = ("kitchen", "hall", "bathroom", "bedroom", "office", "garage")
ROUNDS = 10
SETTLE_S = 2.0
"""The daemon looks twice a second whether its state has changed."""


@dataclass(frozen=True)
class Plan:
    """How long, and how much; ``think_s`` is a client's mean pause after each action."""

    seconds: float
    seed: int
    think_s: float = 0.75
    sample_every_s: float = 10.0


@dataclass(frozen=True)
class Sample:
    """What was held at one moment; ``at_s`` since the traffic began."""

    at_s: float
    processes: dict[str, Process]
    queued: int
    active: int


@dataclass
class Soak:
    """What was seen; what an interrupted run did not come to stays as it is here."""

    plan: Plan
    ledger: Ledger
    has_schemas: bool
    samples: list[Sample] = field(default_factory=list)
    traffic_s: float = 0.0
    worker_pids: set[int] = field(default_factory=set)
    most_active: int = 0
    is_interrupted: bool = False
    is_idle_at_end: bool = False
    answered_at_once: int = 0
    """Of as many prompts as there are slots, how many were being answered at the same time."""


def soak(
    port: int, node: Node, plan: Plan, on_second: Callable[[Soak], None] = lambda _: None
) -> Soak:
    """Let the clients loose, then see whether everything is as it was before.

    ``on_second`` is called every second. Ctrl-C ends the traffic early, and is the result's
    ``is_interrupted``. Raises what a client raised.
    """
    ledger = Ledger()
    with contextlib.closing(Listener(port, node.name, ledger)) as listener:
        has_schemas = _has_schemas(port, node.name, ledger)
        place = Place(port, node.name, has_schemas)
        found = Soak(plan, ledger, has_schemas)
        stopping = threading.Event()
        with ThreadPoolExecutor(len(NAMES)) as pool:
            clients = [
                pool.submit(
                    SoakClient(place, name, f"{plan.seed} {name}", ledger).run,
                    at / len(NAMES),
                    plan.think_s,
                    stopping,
                )
                for at, name in enumerate(NAMES)
            ]
            try:
                _watch(found, node.pid, listener, clients, on_second)
            except KeyboardInterrupt:
                found.is_interrupted = True
                ledger.give_up()
            finally:
                stopping.set()
        for client in clients:
            client.result()
        if not found.is_interrupted:
            _close(found, node.pid, place, listener)
        found.most_active = listener.most_active
    return found


def _has_schemas(port: int, node: str, ledger: Ledger) -> bool:
    """Whether the node takes a ``response_format``."""
    first = SoakClient(Place(port, node, has_schemas=False), "first", "", ledger)
    with contextlib.closing(first):
        first.come()
        entry = first.ask(json_object(Random(0)).but("invalid_request"))
        entry.ended.wait(PATIENCE_S)
    return entry.end != "invalid_request"


def _watch(
    found: Soak,
    daemon_pid: int,
    listener: Listener,
    clients: list[Future[None]],
    on_second: Callable[[Soak], None],
) -> None:
    """Take samples until the time is over, or a client has ended before."""
    began_s = time.monotonic()
    next_s = 0.0
    while found.traffic_s < found.plan.seconds and not any(each.done() for each in clients):
        if found.traffic_s >= next_s:
            _sample(found, daemon_pid, listener)
            next_s += found.plan.sample_every_s
        on_second(found)
        left_s = found.plan.seconds - found.traffic_s
        time.sleep(max(0.0, min(1.0, left_s)))
        found.traffic_s = time.monotonic() - began_s
    _sample(found, daemon_pid, listener)
    on_second(found)


def _sample(found: Soak, daemon_pid: int, listener: Listener) -> None:
    now, state = processes(daemon_pid), listener.state
    if "worker" in now:
        found.worker_pids.add(now["worker"].pid)
    found.samples.append(
        Sample(round(found.traffic_s, 1), now, state.get("queued", 0), state.get("active", 0))
    )


def _close(found: Soak, daemon_pid: int, place: Place, listener: Listener) -> None:
    """Nobody asks any more: see whether it is idle, and every slot there."""
    time.sleep(SETTLE_S)
    found.is_idle_at_end = listener.wait_until_idle(PATIENCE_S)
    last = SoakClient(place, "last", "", found.ledger)
    with contextlib.closing(last):
        last.come()
        for seed in range(ROUNDS):
            if found.answered_at_once < SLOTS:
                random = Random(seed)  # an answer of random words may be short by chance
                entries = [last.ask(rambling(random)) for _ in range(SLOTS)]
                found.answered_at_once = max(found.answered_at_once, _at_once(entries))
    found.worker_pids.add(processes(daemon_pid)["worker"].pid)


def _at_once(entries: list[Entry]) -> int:
    """How many were being answered when the first of them ended."""
    if not all(entry.ended.wait(PATIENCE_S) for entry in entries):
        return 0
    first_end_s = min(entry.ended_s for entry in entries)
    return sum(entry.answering_s < first_end_s for entry in entries)
