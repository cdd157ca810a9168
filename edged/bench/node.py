"""edged whole: the daemon, its worker, and clients on a broker."""

import json
import os
import queue
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edged.bench.figures import Added, Answer, Arrival, WorkerSpeeds
from edged.bench.sides import START_S, Child, Setup
from edged.bench.stamped_daemon import name_of
from edged.engine.frames import Load
from edged.errors import BrokerError, EdgedError
from edged.settings import EngineSettings
from edged.transports.paho_loop import send_at_once
from edged.transports.topics import Topics

CLIENT = "bench"
SILENCE_S = 60.0
"""A node gives a sign of life every 15 s."""


@dataclass
class _Asking:
    """One prompt on its way; its times are those of our own side."""

    text: str
    asked_s: float = 0.0
    arrivals: list[Arrival] = field(default_factory=list)
    done_s: float = 0.0
    done: dict[str, Any] = field(default_factory=dict)


class EdgedNode:
    """``Side``: prompts over MQTT to a daemon of our own."""

    name = "edged"

    def __init__(
        self, setup: Setup, settings: EngineSettings, port: int, folder: Path, *, max_tokens: int
    ) -> None:
        """``settings``: the operator's; ``port``: of a broker on this machine."""
        self._setup = setup
        self._settings = settings
        self._port = port
        self._folder = folder
        self.state_dir = folder / "state"
        self._max_tokens = max_tokens
        self._starts = 0
        self._topics = Topics("edged/v1", "")
        self._stamps_file = folder / "stamps.jsonl"
        self._stamps_read = 0
        self._stamps: dict[str, dict[str, Any]] = {}
        self._child: Child | None = None
        self._client: paho.Client | None = None
        self._asking: dict[str, _Asking] = {}
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._count = 0
        self._load: Load | None = None
        self._state: dict[str, Any] = {}
        self._card: dict[str, Any] = {}

    @property
    def facts(self) -> Mapping[str, object]:
        return {key: self._card.get(key) for key in ("engine", "model", "quant", "version")}

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def load(self) -> Load:
        """What the worker was told to load."""
        assert self._load is not None
        return self._load

    def start(self) -> None:
        """Raises ``EdgedError`` where the model cannot be served as the comparison needs it."""
        self._starts += 1  # under a new name, since the broker keeps what the last one said
        self._topics = Topics("edged/v1", f"bench-{self._starts}")
        self._state, self._card = {}, {}
        command = [sys.executable, "-m", "edged.bench.stamped_daemon", str(self._stamps_file)]
        self._child = Child(
            [*command, "plain"] if self._setup.is_shape else command,
            self._folder / "daemon.log",
            environment=self._environment(),
        )
        self._connect()
        self._wait_until_serving()
        self._read_stamps()
        for name, wanted in (("slots", self._setup.clients), ("ctx", self._setup.ctx)):
            given = getattr(self.load, name)
            if given is None or given < wanted:
                raise EdgedError(
                    f"edged serves {name} {given} where {wanted} are needed; ask for fewer clients "
                    "or tokens, or take a smaller model"
                )

    def stop(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
        if self._child is not None:
            self._child.end()
            self._child = None

    def ask(self, prompts: Sequence[str], max_tokens: int) -> list[Answer]:
        assert self._client is not None
        self._asking = {}
        for text in prompts:
            self._count += 1
            self._asking[f"bench-{self._count}"] = _Asking(text)
        for prompt_id, asking in self._asking.items():
            body = {
                "id": prompt_id,
                "prompt": asking.text,
                "max_tokens": max_tokens,
                "temperature": 0,
                "text_in_done": False,
            }
            payload = json.dumps(body).encode()
            asking.asked_s = time.monotonic()
            self._client.publish(self._topics.prompt(CLIENT), payload, 1)
        self._wait_until_answered()
        self._read_stamps()
        return [self._answer(each) for each in self._asking.values()]

    def _answer(self, asking: _Asking) -> Answer:
        usage, timings = asking.done["usage"], asking.done["timings"]
        alone = len(self._asking) == 1  # among several, the worker begins when others let it
        stamps = self._stamps.pop(name_of(asking.text), None)
        return Answer(
            asked_s=asking.asked_s,
            arrivals=tuple(asking.arrivals),
            done_s=asking.done_s,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            cached_tokens=usage["cached_tokens"],
            added=added_to(asking.asked_s, asking.arrivals, stamps) if alone else None,
            worker=WorkerSpeeds(timings["prefill_tokens_per_s"], timings["decode_tokens_per_s"]),
        )

    def _environment(self) -> dict[str, str]:
        """Nothing of how a real node on this machine is set up, but for its engine."""
        inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith("EDGED_")}
        for name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY"):
            inherited.pop(name, None)
        engine = self._settings.model_dump(mode="json", exclude_none=True)
        if self._setup.threads is not None:
            engine["threads"] = self._setup.threads
        engine |= {"ctx": self._setup.ctx, "slots": self._setup.clients}
        return (
            inherited
            | {
                f"EDGED_ENGINE__{name.upper()}": value
                if isinstance(value, str)
                else json.dumps(value)
                for name, value in engine.items()
            }
            | {
                "EDGED_CONFIG": os.devnull,
                "EDGED_NODE": self._topics.node,
                "EDGED_STATE_DIR": str(self.state_dir),
                "EDGED_MODEL__PATH": str(self._setup.model),
                "EDGED_MODEL__STORE": str(self._folder / "store"),
                "EDGED_MQTT__HOST": "127.0.0.1",
                "EDGED_MQTT__PORT": str(self._port),
                "EDGED_SAMPLING__MAX_TOKENS_LIMIT": str(max(self._max_tokens, 512)),
            }
        )

    def _connect(self) -> None:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="edged-bench",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        client.on_socket_open = send_at_once
        client.on_message = self._on_message
        client.on_connect = lambda connected, *_: connected.subscribe(
            [
                (topic, 1)
                for topic in (
                    self._topics.completion(CLIENT, "+"),
                    self._topics.state,
                    self._topics.card,
                )
            ]
        )
        try:
            client.connect("127.0.0.1", self._port)
        except OSError as error:
            raise BrokerError(f"no broker on port {self._port} ({error.strerror})") from None
        client.loop_start()
        self._client = client

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        """In paho's thread: the stamp first."""
        now_s = time.monotonic()
        reply = json.loads(message.payload) if message.payload else {}
        if message.topic == self._topics.state:
            self._state = reply
        elif message.topic == self._topics.card:
            self._card = reply
        elif (asking := self._asking.get(str(reply.get("id")))) is not None and not asking.done:
            if reply["type"] == "delta":
                asking.arrivals.append(Arrival(now_s, reply["n"]))
            elif reply["type"] in ("done", "failed"):
                asking.done_s, asking.done = now_s, reply
        self._heard.put(message.topic)

    def _wait_until_serving(self) -> None:
        assert self._child is not None
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s and not self._child.has_ended:
            if self._state.get("model_state") == "serving" and self._card.get("model"):
                return
            if (reason := self._state.get("reason")) is not None:
                raise self._child.failure(f"edged's start ({reason})")
            self._hear(0.5)
        raise self._child.failure("edged's start")

    def _wait_until_answered(self) -> None:
        assert self._child is not None
        while missing := [each for each in self._asking.values() if not each.done]:
            if self._child.has_ended or not self._hear(SILENCE_S):
                raise self._child.failure(f"edged's answer to {len(missing)} prompts")
        for each in self._asking.values():
            if each.done["type"] == "failed":
                raise EdgedError(f"edged: {each.done['code']}: {each.done['error']}")

    def _hear(self, timeout_s: float) -> bool:
        try:
            self._heard.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True

    def _read_stamps(self) -> None:
        with self._stamps_file.open("r", encoding="ascii") as file:
            file.seek(self._stamps_read)
            for line in file:
                found = json.loads(line)
                if "load" in found:
                    self._load = Load(**found["load"])
                else:
                    self._stamps[found["prompt"]["name"]] = found["prompt"]
            self._stamps_read = file.tell()


def added_to(
    asked_s: float, arrivals: Sequence[Arrival], stamps: Mapping[str, Any] | None
) -> Added | None:
    """From one prompt's stamps; ``None`` where its first token was not its first text.

    The worker's first step began as long before its first piece as it read the prompt. What it did
    before that step and between its steps counts as added, too.
    """
    if stamps is None or not arrivals or stamps.get("first_piece_n") != 1:
        return None
    began_s = stamps["first_piece_s"] - stamps["prefill_s"]
    return Added(
        before_ms=1000 * (began_s - asked_s),
        after_ms=1000 * (arrivals[0].monotonic_s - stamps["first_piece_s"]),
    )
