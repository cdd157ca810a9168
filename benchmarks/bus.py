"""What benchmarks need of the bus: a daemon of their own, and clients of the wire protocol."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

ROOT = "edged/v1"
PATIENCE_S = 60.0

Receiver = Callable[[str, bytes], None]
"""Takes a topic and a payload, in the client's own thread."""


class Client:
    """One client of the broker; it does not come back by itself."""

    def __init__(self, port: int, receive: Receiver, client_id: str | None = None) -> None:
        self._subscribed: queue.Queue[bool] = queue.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"benchmark-{uuid.uuid4().hex[:8]}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.on_message = lambda _client, _data, got: receive(got.topic, got.payload)
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def subscribe(self, topic: str) -> None:
        """Returns when the broker has said yes. Raises ``queue.Empty`` when it is silent."""
        self._client.subscribe(topic, 1)
        self._subscribed.get(timeout=PATIENCE_S)

    def unsubscribe(self, topic: str) -> None:
        """Does not wait; what is under way still comes."""
        self._client.unsubscribe(topic)

    def publish(self, topic: str, body: dict[str, Any] | bytes) -> paho.MQTTMessageInfo:
        """With QoS 1; the broker has it when the result is published."""
        payload = json.dumps(body) if isinstance(body, dict) else body
        return self._client.publish(topic, payload, qos=1)

    def vanish(self) -> None:
        """Close the TCP connection without a word to the broker."""
        if (sock := self._client.socket()) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def close(self) -> None:
        """Leave the broker as one should."""
        self._client.disconnect()
        self._client.loop_stop()


@dataclass(frozen=True)
class Node:
    """A daemon that serves; ``card`` is what it says of itself."""

    name: str
    pid: int
    card: dict[str, Any]


@contextlib.contextmanager
def daemon(folder: Path, port: int, name: str, **settings: object) -> Iterator[Node]:
    """`edged run` on a broker of the loopback address, serving; stopped at the end.

    ``settings`` are named as in ``engine__slots=4``. Raises ``RuntimeError`` with the end of the
    daemon's log when it does not serve, or leaves an answer out.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGED_")}
    environment |= {
        "EDGED_NODE": name,
        "EDGED_STATE_DIR": str(folder / "state"),
        "EDGED_MODEL__STORE": str(folder / "store"),
        "EDGED_MQTT__HOST": "127.0.0.1",
        "EDGED_MQTT__PORT": str(port),
    }
    environment |= {f"EDGED_{key.upper()}": str(value) for key, value in settings.items()}
    log = folder / "edged.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "edged", "run"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the benchmark, which then stops it
        )
    try:
        yield Node(name, process.pid, _card_when_serving(process, port, name))
    except queue.Empty:
        said = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"edged did not answer; its log: {said}") from None
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _card_when_serving(process: subprocess.Popen[bytes], port: int, name: str) -> dict[str, Any]:
    """Raises ``queue.Empty`` when the model is not served in time, or the daemon ends."""
    heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
    state: dict[str, Any] = {}
    card: dict[str, Any] = {}
    until_s = time.monotonic() + PATIENCE_S
    with contextlib.closing(Client(port, lambda *message: heard.put(message))) as client:
        client.subscribe(f"{ROOT}/{name}/state")
        client.subscribe(f"{ROOT}/{name}/card")
        while time.monotonic() < until_s and process.poll() is None:
            with contextlib.suppress(queue.Empty):
                topic, payload = heard.get(timeout=1.0)
                (state if topic.endswith("/state") else card).update(json.loads(payload))
            if state.get("model_state") == "serving" and card.get("engine"):
                return card
    raise queue.Empty
