"""The clients of the soak: what they do besides asking, and the one that hears everything."""

import functools
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.bus import ROOT, Client
from benchmarks.soak.ledger import Entry, Ledger
from benchmarks.soak.requests import (
    SLOTS,
    Request,
    conversation,
    long,
    makers,
    rambling,
    short,
)

PATIENCE_S = 30.0
"""The longest wait for an answer; the queue at its longest takes some five seconds."""
TURNS = 3
MOST_AT_ONCE = 9
"""Prompts of one client."""
SHORT_PAUSE_S = (0.0, 0.3)
"""Before a cancel, and up to a deadline: long answers take 0.2 to 0.5 s."""
AWAY_S = (0.2, 5.0)


@dataclass(frozen=True)
class Place:
    """Where the traffic goes, and what is known of it there."""

    port: int
    node: str
    has_schemas: bool


class Listener:
    """Hears every reply of the node and its state, whoever asked."""

    def __init__(self, port: int, node: str, ledger: Ledger) -> None:
        self._ledger = ledger
        self._state_topic = f"{ROOT}/{node}/state"
        self._changed = threading.Condition()
        self._state: dict[str, Any] = {}
        self.most_active = 0
        """The most prompts at once that the state told of."""
        self._client = Client(port, self._receive)
        self._client.subscribe(f"{ROOT}/+/completion/#")
        self._client.subscribe(self._state_topic)

    @property
    def state(self) -> dict[str, Any]:
        """The last that came."""
        return self._state

    def wait_until_idle(self, patience_s: float) -> bool:
        """Until the state says that nobody waits and nobody is being answered."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._state.get("active") == self._state.get("queued") == 0, patience_s
            )

    def close(self) -> None:
        """Leave the broker."""
        self._client.close()

    def _receive(self, topic: str, payload: bytes) -> None:
        if topic == self._state_topic:
            with self._changed:
                self._state = json.loads(payload)
                self.most_active = max(self.most_active, self._state["active"])
                self._changed.notify_all()
        else:
            client, prompt_id = topic.rsplit("/", 2)[1:]
            self._ledger.heard((client, prompt_id), payload)


class SoakClient:
    """Asks, waits, cancels, repeats itself and vanishes; everything drawn from its generator."""

    def __init__(self, place: Place, name: str, seed: str, ledger: Ledger) -> None:
        self._place = place
        self._name = name
        self._random = Random(seed)
        self._ledger = ledger
        self._asked = 0
        self._connections = 0
        self._bus: Client | None = None

    def run(self, begin_at: float, think_s: float, stopping: threading.Event) -> None:
        """Until ``stopping``, with a pause of ``think_s`` on average after each action.

        First everything once, beginning ``begin_at`` (0 to 1) through the list, so that a few
        clients do all of it soon; then at random.
        """
        kinds = makers(schemas=self._place.has_schemas)
        actions: dict[Callable[[], None], int] = {
            **{functools.partial(self._ask, make): weight for make, weight in kinds.items()},
            self._converse: 5,
            self._cancel: 8,
            self._burst: 3,
            self._miss_a_deadline: 5,
            self._ask_twice: 5,
            self._ask_in_plain_text: 3,
            self._vanish: 5,
        }
        doings, weights = list(actions), list(actions.values())
        begin = int(begin_at * len(doings))
        each_once = deque(doings[begin:] + doings[:begin])
        try:
            self.come()
            self._burst(MOST_AT_ONCE)  # all clients together: as busy as it can become later on
            while not stopping.wait(self._random.expovariate(1 / think_s)):
                if each_once:
                    each_once.popleft()()
                else:
                    self._random.choices(doings, weights)[0]()
        except (OSError, RuntimeError, ValueError, queue.Empty):
            if not self._ledger.is_given_up:  # else the broker is gone, as it was told to
                raise
        finally:
            self.close()

    def come(self) -> None:
        """Connect, half of the times under a new name."""
        self._connections += self._random.randint(0, 1)
        self._bus = Client(
            self._place.port, lambda *_: None, f"soak-{self._name}-{self._connections}"
        )
        self._bus.subscribe(self._topic("completion") + "/+")

    def close(self) -> None:
        """Leave the broker."""
        if self._bus is not None:
            self._bus.close()

    def ask(self, request: Request) -> Entry:
        """Publish a prompt; does not wait."""
        self._asked += 1
        return self._publish(str(self._asked), request)

    def _publish(self, prompt_id: str, request: Request) -> Entry:
        assert self._bus is not None
        entry = self._ledger.expect((self._name, prompt_id), request)
        self._bus.publish(self._topic("prompt"), {"id": prompt_id, **request.body})
        return entry

    # What a client does

    def _ask(self, make: Callable[[Random], Request]) -> None:
        self.ask(make(self._random)).ended.wait(PATIENCE_S)

    def _converse(self) -> None:
        """Each turn repeats those before, so that there is something to start from."""
        messages: list[dict[str, str]] = []
        for _ in range(TURNS):
            request = conversation(self._random, messages)
            entry = self.ask(request)
            entry.ended.wait(PATIENCE_S)
            answer = entry.reply.get("text") or "I do not know."
            messages = [*request.body["messages"], {"role": "assistant", "content": answer}]

    def _cancel(self) -> None:
        """At any moment: at once, while it is read, while it is answered, or too late; or twice."""
        entry = self.ask(rambling(self._random).but("cancelled"))
        prompt_id = str(self._asked)
        moment = self._random.choice(("at once", "later", "answering"))
        if moment == "answering":
            entry.answering.wait(PATIENCE_S)
        elif moment == "later":
            time.sleep(self._random.uniform(*SHORT_PAUSE_S))
        self._publish_cancel(prompt_id)
        if self._random.random() < 0.3:
            self._publish_cancel(prompt_id)
            self._ledger.note("cancelled twice")
        entry.ended.wait(PATIENCE_S)

    def _burst(self, prompts: int | None = None) -> None:
        """More than there are slots, so that some are cancelled or expire before they start."""
        entries = []
        cancelled = []
        for _ in range(prompts or self._random.randint(SLOTS + 1, MOST_AT_ONCE)):
            make = self._random.choice((short, long, rambling, rambling))
            request = make(self._random).but(priority=self._random.randint(0, 9))
            fate = self._random.choice(("answer", "answer", "cancel", "deadline"))
            if fate == "cancel":
                request = request.but("cancelled")
            elif fate == "deadline":
                request = request.but("deadline", "expired", deadline_s=self._deadline_s())
            entries.append(self.ask(request))
            if fate == "cancel":
                cancelled.append(str(self._asked))
        for prompt_id in reversed(cancelled):
            self._publish_cancel(prompt_id)
        self._ledger.note("bursts")
        _wait_for_all(entries)

    def _miss_a_deadline(self) -> None:
        request = rambling(self._random).but("deadline", "expired", deadline_s=self._deadline_s())
        self._ledger.note("deadlines")
        self.ask(request).ended.wait(PATIENCE_S)

    def _ask_twice(self) -> None:
        """The same id and body again, before the first can have ended."""
        body = rambling(self._random).body | {"prompt": long(self._random).body["prompt"]}
        request = Request("asked twice", body)
        entry = self.ask(request)
        assert self._bus is not None
        self._bus.publish(self._topic("prompt"), {"id": str(self._asked), **body})
        self._ledger.note("duplicates")
        entry.ended.wait(PATIENCE_S)

    def _ask_in_plain_text(self) -> None:
        assert self._bus is not None
        self._ledger.expect_unnamed()
        self._bus.publish(self._topic("prompt"), short(self._random).body["prompt"].encode())

    def _vanish(self) -> None:
        """In the middle of an answer; come back later, as the same client of the broker or not."""
        assert self._bus is not None
        entries = [self.ask(rambling(self._random)) for _ in range(self._random.randint(1, 3))]
        # The broker answers a subscription after it took what was published before.
        self._bus.subscribe(self._topic("completion") + "/+")
        if self._random.random() < 0.7:
            entries[0].answering.wait(PATIENCE_S)
        self._bus.vanish()
        self._ledger.note("vanished")
        time.sleep(self._random.uniform(*AWAY_S))
        self.come()
        _wait_for_all(entries)

    def _publish_cancel(self, prompt_id: str) -> None:
        assert self._bus is not None
        self._bus.publish(self._topic("cancel"), {"id": prompt_id})
        self._ledger.note("cancels")

    def _topic(self, kind: str) -> str:
        return f"{ROOT}/{self._place.node}/{kind}/{self._name}"

    def _deadline_s(self) -> float:
        return 0.005 + self._random.uniform(*SHORT_PAUSE_S)


def _wait_for_all(entries: list[Entry]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    for entry in entries:
        entry.ended.wait(max(0.0, until_s - time.monotonic()))
