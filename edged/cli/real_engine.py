"""The simulated board in real time, around a real node: ``edged simulate --real-engine``.

What the worker takes of this machine's processors becomes the twin's watts; the twin's files are
what the node's sensors read. Governor, daemon and worker are the true ones, and the board is not.
"""

import contextlib
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edged.cli.bus import Bus
from edged.cli.local_broker import local_broker
from edged.cli.local_daemon import local_daemon, wait_until_serving
from edged.hardware.cgroups import read_text
from edged.hardware.machine import read_machine
from edged.hardware.twin import Twin
from edged.settings import MqttSettings
from edged.simulation.scenario import Ambient, Scenario

NODE: Final = "simulated"
CLIENT: Final = "simulate"
STEP_S: Final = 0.25
PROMPT: Final = "turn on the lamp in the kitchen"
"""For the bundled model."""
OUTSTANDING: Final = 2


@dataclass
class Streams:
    """Answers as a client sees them."""

    whole: int = 0
    torn: list[str] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    waits: int = 0
    _texts: dict[str, str] = field(default_factory=dict)
    _seqs: dict[str, int] = field(default_factory=dict)

    def take(self, reply: dict[str, Any]) -> bool:
        """One message; whether it was the last of its prompt."""
        name = reply["id"]
        if reply["seq"] != self._seqs.get(name, -1) + 1:
            self.torn.append(f"{name}: {reply['seq']} after {self._seqs.get(name)}")
        self._seqs[name] = reply["seq"]
        if reply["type"] == "delta":
            self._texts[name] = self._texts.get(name, "") + reply["text"]
        elif reply["type"] == "waiting":
            self.waits += 1
        elif reply["type"] == "failed":
            self.failed[reply["code"]] = self.failed.get(reply["code"], 0) + 1
        elif reply["type"] == "done":
            is_whole = self._texts.get(name, "") == reply["text"]
            self.whole += is_whole
            if not is_whole:
                self.torn.append(f"{name}: the deltas are not the text")
        return reply["type"] in ("done", "failed")


def run_real(scenario: Scenario, progress: Callable[[float], None]) -> dict[str, Any]:
    """Prompts without a pause for ``scenario.minutes`` of real time; what was seen, as JSON.

    Raises ``ConfigError`` where the scenario cannot be, ``EdgedError`` where the node fails.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-real-")))
        ambient_c = Ambient.parse(scenario.ambient).at(0.0)
        twin = Twin(scenario.board(), folder / "board", ambient_c=ambient_c, seed=scenario.seed)
        _, port = stack.enter_context(local_broker(folder))
        mqtt = MqttSettings(host="127.0.0.1", port=port)
        settings = {
            "throttle.root": folder / "board",
            "throttle.clock": scenario.has_clock,
            "profile": scenario.profile,
        }
        daemon = stack.enter_context(local_daemon(NODE, folder, mqtt, settings))
        bus = stack.enter_context(Bus(mqtt))
        wait_until_serving(NODE, bus, daemon, folder)
        return _Loop(scenario, twin, bus, daemon.pid, mqtt.topic_root).run(progress)


class _Loop:
    def __init__(self, scenario: Scenario, twin: Twin, bus: Bus, pid: int, root: str) -> None:
        self._scenario = scenario
        self._ambient = Ambient.parse(scenario.ambient)
        self._twin = twin
        self._bus = bus
        self._pid = pid
        self._root = f"{root}/{NODE}"
        self._cores = read_machine().cores
        self._cpu_s = 0.0
        self._streams = Streams()
        self._asked = 0
        self._states: list[dict[str, Any]] = []
        self._truth_c: deque[float] = deque(maxlen=round(3 / STEP_S))
        self._off_c = 0.0
        self._peak_c = twin.temperature_c

    def run(self, progress: Callable[[float], None]) -> dict[str, Any]:
        self._bus.subscribe(f"{self._root}/completion/{CLIENT}/#")
        self._bus.subscribe(f"{self._root}/state")
        for _ in range(OUTSTANDING):
            self._ask()
        began_s = before_s = time.monotonic()
        while (now_s := time.monotonic()) - began_s < 60 * self._scenario.minutes:
            self._heat(now_s - began_s, now_s - before_s)
            before_s = now_s
            self._listen(STEP_S)
            progress((now_s - began_s) / 60)
        return self._results()

    def _heat(self, now_s: float, took_s: float) -> None:
        twin = self._twin
        twin.ambient_c = self._ambient.at(now_s)
        cpu_s = _worker_cpu_s(self._pid)
        share = min(max(cpu_s - self._cpu_s, 0.0) / (took_s * self._cores), 1.0) if took_s else 0.0
        self._cpu_s = cpu_s
        idle_w = twin.board.idle_w
        twin.advance(took_s, idle_w + share * (twin.watts() - idle_w))
        twin.publish()
        twin.obey()
        self._truth_c.append(twin.temperature_c)
        self._peak_c = max(self._peak_c, twin.temperature_c)

    def _listen(self, for_s: float) -> None:
        until_s = time.monotonic() + for_s
        while (left_s := until_s - time.monotonic()) > 0:
            message = next(self._bus.messages(left_s), None)
            if message is None:
                return
            body = json.loads(message.payload)
            if message.topic.endswith("/state"):
                self._note(body)
            elif self._streams.take(body):
                self._ask()

    def _note(self, state: dict[str, Any]) -> None:
        said_c = state["temperature_c"]
        if said_c is not None and self._truth_c:
            # Against what was true in the last seconds: a state is not published for every reading.
            off_c = min(abs(said_c - true_c) for true_c in self._truth_c)
            self._off_c = max(self._off_c, off_c)
        if not self._states or self._states[-1]["level"] != state["level"]:
            self._states.append(
                {
                    "minute": round(self._twin.now_s / 60, 2),
                    "level": state["level"],
                    "temperature_c": said_c,
                    "reason": state["reason"],
                }
            )

    def _ask(self) -> None:
        self._asked += 1
        body = {"id": f"p{self._asked}", "prompt": PROMPT, "seed": self._asked}
        self._bus.publish(f"{self._root}/prompt/{CLIENT}", body)

    def _results(self) -> dict[str, Any]:
        streams = self._streams
        return {
            "minutes": self._scenario.minutes,
            "levels": self._states,
            "prompts_asked": self._asked,
            "streams_whole": streams.whole,
            "streams_torn": streams.torn,
            "failed": streams.failed,
            "waiting_messages": streams.waits,
            "peak_c": round(self._peak_c, 2),
            "furthest_from_the_truth_c": round(self._off_c, 2),
        }


def _worker_cpu_s(daemon_pid: int) -> float:
    """Processor time of the daemon's children, of which the worker is the one that works."""
    children = read_text(Path(f"/proc/{daemon_pid}/task/{daemon_pid}/children")) or ""
    ticks = 0
    for pid in children.split():
        fields = (read_text(Path(f"/proc/{pid}/stat")) or "").rpartition(")")[2].split()
        if len(fields) > 13:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
