"""What goes wrong, and when: each kind in a thread of its own, at random times."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from benchmarks.chaos.broker import Broker
from benchmarks.chaos.clock import STEP_S, SteppedClock
from benchmarks.chaos.disk import SmallDisk
from benchmarks.chaos.network import Network
from benchmarks.chaos.node import Node
from benchmarks.chaos.proxy import DelayProxy

DELAY_S: Final = 0.3
LOSS_PERCENT: Final = 20


@dataclass(frozen=True)
class Happened:
    """One fault. Times are CLOCK_MONOTONIC."""

    kind: str
    began_s: float
    ended_s: float
    words: str = ""


@dataclass(frozen=True)
class Kind:
    """``happen`` returns when it is over, with words on it; it lasts at most ``most_s``."""

    name: str
    happen: Callable[[Random], str]
    most_s: float


@dataclass(frozen=True)
class Victims:
    """What faults are done to; ``None`` where this machine cannot have it."""

    node: Node
    broker: Broker
    proxy: DelayProxy
    network: Network | None
    disk: SmallDisk | None
    clock: SteppedClock | None


def kinds(victims: Victims, *, pace: float = 1.0) -> list[Kind]:
    """Every kind that these victims can suffer; ``pace`` below 1 makes the lasting ones shorter."""
    found = [
        Kind("worker killed", lambda _: f"process {victims.node.kill_worker()}", 0.0),
        Kind("daemon killed", lambda _: f"process {victims.node.kill()}", 0.0),
        _broker_killed(victims.broker, pace),
        _delayed(victims.proxy, pace),
    ]
    if victims.network is not None:
        found += [_cut(victims.network, pace), _losing(victims.network, pace)]
    if victims.disk is not None:
        found.append(_disk_full(victims.disk, pace))
    if victims.clock is not None:
        found.append(_clock_stepped(victims.clock))
    return found


def _broker_killed(broker: Broker, pace: float) -> Kind:
    most_s = 4.0 * pace

    def happen(rng: Random) -> str:
        broker.kill()
        away_s = rng.uniform(0, most_s)
        time.sleep(away_s)
        broker.start()
        return f"away for {away_s:.1f} s"

    return Kind("broker killed", happen, most_s)


def _delayed(proxy: DelayProxy, pace: float) -> Kind:
    most_s = 15.0 * pace

    def happen(rng: Random) -> str:
        proxy.delay_s = DELAY_S
        lasts_s = rng.uniform(most_s / 5, most_s)
        time.sleep(lasts_s)
        proxy.delay_s = 0.0
        return f"300 ms each way for {lasts_s:.1f} s"

    return Kind("network delayed", happen, most_s)


def _cut(network: Network, pace: float) -> Kind:
    most_s = max(2.0, 20.0 * pace)

    def happen(rng: Random) -> str:
        network.cut()
        lasts_s = rng.uniform(2.0, most_s)
        time.sleep(lasts_s)
        network.mend()
        return f"for {lasts_s:.1f} s"

    return Kind("network cut", happen, most_s)


def _losing(network: Network, pace: float) -> Kind:
    most_s = 20.0 * pace

    def happen(rng: Random) -> str:
        network.lose(LOSS_PERCENT)
        lasts_s = rng.uniform(most_s / 4, most_s)
        time.sleep(lasts_s)
        network.lose_nothing()
        return f"{LOSS_PERCENT} % each way for {lasts_s:.1f} s"

    return Kind("packets lost", happen, most_s)


def _disk_full(disk: SmallDisk, pace: float) -> Kind:
    most_s = 12.0 * pace

    def happen(rng: Random) -> str:
        again = rng.random() < 0.5
        disk.fill(again=again)
        lasts_s = rng.uniform(most_s / 4, most_s)
        time.sleep(lasts_s)
        disk.free()
        return f"for {lasts_s:.1f} s{', what became free too' if again else ''}"

    return Kind("disk full", happen, most_s)


def _clock_stepped(clock: SteppedClock) -> Kind:
    def happen(rng: Random) -> str:
        by_s = rng.choice((STEP_S, STEP_S, -STEP_S))
        clock.step(by_s)
        return f"by {by_s:+d} s"

    return Kind("clock stepped", happen, 0.0)


class Faults:
    """So many of each kind within so many seconds; ``happened`` lists those that are over."""

    def __init__(self, kinds: list[Kind], count: int, seconds: float, seed: int) -> None:
        self.kinds = kinds
        self.happened: list[Happened] = []
        self._errors: list[BaseException] = []
        self._threads = []
        for kind in kinds:
            rng = Random(f"{seed} {kind.name}")
            last_s = max(0.0, seconds - kind.most_s)
            times = sorted(rng.uniform(0, last_s) for _ in range(count))
            self._threads.append(
                threading.Thread(
                    target=self._run, args=(kind, times, rng), name=kind.name, daemon=True
                )
            )

    def start(self) -> None:
        """From now on."""
        self._began_s = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def are_over(self) -> bool:
        """Whether all have happened. Raises what kept one from happening."""
        for error in self._errors:
            raise error
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, kind: Kind, times: list[float], rng: Random) -> None:
        try:
            for at_s in times:
                time.sleep(max(0.0, self._began_s + at_s - time.monotonic()))
                began_s = time.monotonic()
                words = kind.happen(rng)
                self.happened.append(Happened(kind.name, began_s, time.monotonic(), words))
        except BaseException as error:  # noqa: BLE001 (raised in the thread that looks)
            self._errors.append(error)
