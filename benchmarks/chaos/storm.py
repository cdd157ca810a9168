"""The storm: everything started, hurt, waited for, asked once more, and looked at."""

import contextlib
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.chaos import clock, network
from benchmarks.chaos.broker import Broker
from benchmarks.chaos.clients import Ask, Clients
from benchmarks.chaos.clock import SteppedClock
from benchmarks.chaos.disk import SmallDisk
from benchmarks.chaos.evidence import Key, Verdict, judge
from benchmarks.chaos.faults import Faults, Happened, Victims, kinds
from benchmarks.chaos.network import Network
from benchmarks.chaos.node import CTX, NODE, Life, Node, environment, recorded_command
from benchmarks.chaos.prompts import Asked, prompts
from benchmarks.chaos.proxy import DelayProxy
from benchmarks.chaos.reference import Reference, references

LOOK_S = 1.0
AGAIN_PATIENCE_S = 120.0
SETTLE_S = 3.0
BURST = 4
START_S = 2.0
"""Of the daemon's process, until it has opened the spool."""
GROWTH = 1.05
"""From the lives of the first half of the storm to those of the second."""
GROWTH_AT_ONCE = 1.1
"""Where all prompts are asked once more at one moment."""
LIVES = 8
"""With fewer, their halves tell nothing."""


@dataclass(frozen=True)
class Plan:
    """How much, and how long; ``pace`` below 1 makes faults shorter."""

    prompts: int
    clients: int
    faults: int
    seconds: float
    seed: int
    patience_s: float = 300.0
    """After the last fault, for what is still open."""
    pace: float = 1.0


@dataclass
class Storm:
    """What was seen."""

    plan: Plan
    left_out: dict[str, str] = field(default_factory=dict)
    """Faults that this machine cannot have, and why."""
    happened: list[Happened] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    lives: list[Life] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    seconds: float = 0.0
    calm_s: float = 0.0
    """From the last fault to the last result."""
    answered_again: int = 0
    """When everything was asked once more at the end."""
    left_open: int = 0
    """Prompts in the spool that have no result, after the end."""
    spool_bytes: int = 0
    exit_status: int | None = None
    """Of the daemon's last life, which was asked to stop."""
    began_s: float = 0.0
    full_ends: int = 0
    """Daemons that ended by themselves since a disk without one free page holds no spool."""


Looking = Callable[[str, int, int], None]
"""Told what is going on, how much of it is done, and of how much."""


def storm(plan: Plan, folder: Path, cache: Path, look: Looking = lambda *_: None) -> Storm:
    """All of it. ``folder`` takes what the processes write, ``cache`` the reference texts.

    Raises ``RuntimeError`` where there is no broker, and what kept a fault from happening.
    """
    asked = prompts(plan.prompts, plan.clients, plan.seed)
    told = _references(asked, cache, look)
    found = Storm(plan)
    book = folder / "book.jsonl"
    with _victims(folder, book, found) as victims:
        rng = Random(f"{plan.seed} dues")
        began_s = found.began_s = time.monotonic()
        asks = _asks(asked, plan.seconds, began_s, rng)
        with contextlib.closing(Clients(victims.broker.port, NODE, asks)) as clients:
            clients.start()
            faults = Faults(kinds(victims, pace=plan.pace), plan.faults, plan.seconds, plan.seed)
            faults.start()
            _watch(clients, faults, found, look)
            found.seconds = time.monotonic() - began_s
            found.asks = clients.asks
            for life in victims.node.lives:
                life.stormed = len(life.resident_bytes)
            found.answered_again = clients.ask_all_again(AGAIN_PATIENCE_S)
            time.sleep(SETTLE_S)
            found.exit_status = victims.node.stop()
            time.sleep(SETTLE_S)
        found.lives = victims.node.lives
        found.spool_bytes, found.left_open = _spool(folder / "state" / "spool.db")
    lines = book.read_text("utf-8", errors="replace").splitlines()
    found.verdict = judge(asked, told, clients.heard, lines)
    _judge_rest(found)
    return found


def missing() -> dict[str, str]:
    """The faults that this machine cannot have, and why."""
    found = {}
    if (why := network.missing()) is not None:
        found |= dict.fromkeys(("network cut", "packets lost"), why)
    if (why := clock.missing()) is not None:
        found["clock stepped"] = why
    return found


def _references(asked: Sequence[Asked], cache: Path, look: Looking) -> list[Reference]:
    done = 0

    def on_one() -> None:
        nonlocal done
        done += 1
        look("reference texts", done, len(asked))

    return references([each.text for each in asked], cache, CTX, on_one)


@contextlib.contextmanager
def _victims(folder: Path, book: Path, found: Storm) -> Iterator[Victims]:
    """A broker, and a daemon behind a slow proxy with a network, a disk and a clock of its own."""
    found.left_out = missing()
    with contextlib.ExitStack() as stack:
        broker = Broker(folder)
        broker.start()
        stack.callback(broker.kill)
        state_dir = folder / "state"
        disk: SmallDisk | None = SmallDisk(state_dir)
        try:
            assert disk is not None
            disk.mount()
            stack.callback(disk.unmount)
            stack.callback(disk.free)
        except subprocess.CalledProcessError as error:
            found.left_out["disk full"] = f"no tmpfs: {error.stderr.decode().strip()}"
            disk = None
        its_network = None
        if "network cut" not in found.left_out:
            its_network = Network()
            stack.callback(its_network.close)
            its_network.make()
        its_clock = None if "clock stepped" in found.left_out else SteppedClock(folder)
        proxy = DelayProxy(its_network.address if its_network else "127.0.0.1", broker.port)
        proxy.start()
        stack.callback(proxy.close)
        command = recorded_command(book)
        node = Node(
            its_network.command(*command) if its_network else command,
            environment(
                folder,
                state_dir,
                its_network.address if its_network else "127.0.0.1",
                proxy.port,
                its_clock.environment if its_clock else {},
            ),
            folder / "edged.log",
            its_clock.forget if its_clock else lambda _: None,
        )
        node.start()
        stack.callback(node.stop)
        yield Victims(node, broker, proxy, its_network, disk, its_clock)


def _asks(asked: Sequence[Asked], seconds: float, began_s: float, rng: Random) -> list[Ask]:
    """Every client's prompts come in bursts, at any time of the storm."""
    due: dict[str, list[float]] = {}
    asks = []
    for prompt in asked:
        dues = due.setdefault(prompt.client, [])
        if not dues:
            dues += [rng.uniform(0, seconds)] * rng.randint(1, BURST)
        asks.append(Ask(prompt, began_s + dues.pop()))
    return asks


def _watch(clients: Clients, faults: Faults, found: Storm, look: Looking) -> None:
    """Until the faults are over and everything has a result, or patience has come to an end."""
    until_s: float | None = None
    while until_s is None or time.monotonic() < until_s:
        found.happened = list(faults.happened)
        look(
            f"{len(found.happened)} faults, {clients.open} prompts open",
            clients.ended,
            len(clients.asks),
        )
        if until_s is None and faults.are_over:
            until_s = time.monotonic() + found.plan.patience_s
            over_s = time.monotonic()
        if until_s is not None and clients.ended == len(clients.asks):
            break
        time.sleep(LOOK_S)
    found.calm_s = time.monotonic() - over_s


def _spool(file: Path) -> tuple[int, int]:
    """Its size, and how many prompts have no result in it."""
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as spool:
        (count,) = spool.execute("SELECT count(*) FROM prompts WHERE terminal IS NULL").fetchone()
    return file.stat().st_size, count


def _judge_rest(found: Storm) -> None:
    """What neither messages nor the book tell."""
    verdict, nobody = found.verdict, ("", "")
    if found.answered_again < len(found.asks):
        verdict.blame(
            "asked again, answered again",
            nobody,
            f"{found.answered_again} of {len(found.asks)} within {AGAIN_PATIENCE_S:g} s",
        )
    if found.left_open:
        verdict.blame("nothing stays open", nobody, f"{found.left_open} prompts in the spool")
    if found.exit_status:
        verdict.blame("a clean stop", nobody, f"exit status {found.exit_status}")
    for life in found.lives:
        if life.status and not life.was_killed:
            if _disk_was_full(found, life):
                found.full_ends += 1
            else:
                verdict.blame("stays alive", _named(life), f"ended by itself: {life.status}")
    for name in ("daemon", "worker"):
        peaks = peaks_bytes(found.lives, name)
        half = len(peaks) // 2
        if len(peaks) < LIVES:
            continue
        first, then = max(peaks[:half]), max(peaks[half:])
        if then > GROWTH * first or most_bytes(found.lives, name) > GROWTH_AT_ONCE * first:
            verdict.blame(
                "memory flat",
                (name, ""),
                f"up to {first / 1e6:.1f} MB in the first half, then {then / 1e6:.1f} MB, and "
                f"{most_bytes(found.lives, name) / 1e6:.1f} MB when all was asked again",
            )


def _disk_was_full(found: Storm, life: Life) -> bool:
    """When it began: one that runs already must go on."""
    return any(
        each.kind == "disk full"
        and each.began_s <= life.began_s + START_S <= each.ended_s + START_S
        for each in found.happened
    )


def peaks_bytes(lives: Sequence[Life], name: str) -> list[int]:
    """The most that each life of a process held in the storm, in their order."""
    return [life.peak_bytes for life in lives if life.name == name and life.peak_bytes]


def most_bytes(lives: Sequence[Life], name: str) -> int:
    """Of all lives of a process, also while everything was asked once more."""
    return max((life.most_bytes for life in lives if life.name == name), default=0)


def _named(life: Life) -> Key:
    return (life.name, str(life.pid))
