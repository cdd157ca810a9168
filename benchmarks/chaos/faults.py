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
    broker, proxy = victims.broker, victims.proxy
    found = [
        Kind("worker killed", lambda _: f"process {victims.node.kill_worker()}", 0.0),
        Kind("daemon killed", lambda _: f"process {victims.node.kill()}", 0.0),
        _lasting("broker killed", (0.0, 4.0 * pace), lambda _: broker.kill(), broker.start),
        _lasting(
            "network delayed",
            (3.0 * pace, 15.0 * pace),
            lambda _: proxy.delay(DELAY_S),
            lambda: proxy.delay(0.0),
        ),
    ]
    if (network := victims.network) is not None:
        found += [
            _lasting(
                "network cut",
                (2.0, max(2.0, 20.0 * pace)),
                lambda _: network.cut(),
                network.mend,
            ),
            _lasting(
                "packets lost",
                (5.0 * pace, 20.0 * pace),
                lambda _: network.lose(LOSS_PERCENT),
                network.lose_nothing,
            ),
        ]
    if victims.disk is not None:
        found.append(_disk_full(victims.disk, pace))
    if victims.clock is not None:
        found.append(_clock_stepped(victims.clock))
    return found


def _lasting(
    name: str,
    bounds_s: tuple[float, float],
    begin: Callable[[Random], str | None],
    end: Callable[[], None],
) -> Kind:
    """One that begins, lasts, and ends again; ``begin`` may have a word on it."""

    def happen(rng: Random) -> str:
        words = begin(rng)
        lasts_s = rng.uniform(*bounds_s)
        time.sleep(lasts_s)
        end()
        return ", ".join(filter(None, (f"for {lasts_s:.1f} s", words)))

    return Kind(name, happen, bounds_s[1])


def _disk_full(disk: SmallDisk, pace: float) -> Kind:
    def fill(rng: Random) -> str | None:
        again = rng.random() < 0.5
        disk.fill(again=again)
        return "what became free too" if again else None

    return _lasting("disk full", (3.0 * pace, 12.0 * pace), fill, disk.free)


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
