"""A daemon of its own on a broker, and a client that knows nothing but the wire protocol."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

ROOT = "edged/v1"
NODE = "benchmark"
PATIENCE_S = 60.0


class Node:
    """Prompts to one node, one at a time."""

    def __init__(self, port: int) -> None:
        self._inbox: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._subscribed: queue.Queue[bool] = queue.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"benchmark-{uuid.uuid4().hex[:8]}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        self._client.on_message = lambda _client, _data, message: self._inbox.put(message)
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def wait_until_serving(self) -> None:
        """Until the retained state says that the model is loaded."""
        self._subscribe(f"{ROOT}/{NODE}/state")
        while self._next()["model_state"] != "serving":
            pass
        self._client.unsubscribe(f"{ROOT}/{NODE}/state")

    def card(self) -> dict[str, Any]:
        """What the node says of itself; then listens for answers only."""
        self._subscribe(f"{ROOT}/{NODE}/card")
        card = self._next()
        while not card.get("engine"):  # empty until the model is loaded
            card = self._next()
        self._client.unsubscribe(f"{ROOT}/{NODE}/card")
        self._subscribe(f"{ROOT}/{NODE}/completion/anonymous/+")
        return card

    def ask(self, prompt: str, max_tokens: int) -> str:
        """The greedy answer. Raises `RuntimeError` when the node refuses."""
        body = {
            "id": uuid.uuid4().hex,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": False,
        }
        self._client.publish(f"{ROOT}/{NODE}/prompt", json.dumps(body), qos=1)
        while True:
            reply = self._next()
            if reply.get("id") != body["id"]:
                continue
            if reply["type"] == "failed":
                raise RuntimeError(f"{prompt!r} failed: {reply}")
            if reply["type"] == "done":
                return str(reply["text"])

    def _subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, 1)
        self._subscribed.get(timeout=PATIENCE_S)

    def _next(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self._inbox.get(timeout=PATIENCE_S).payload)
        return body


@contextlib.contextmanager
def daemon(folder: Path, port: int, engine: str) -> Iterator[Node]:
    """`edged run` with the bundled model, serving; stopped at the end."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGED_")}
    environment |= {
        "EDGED_NODE": NODE,
        "EDGED_STATE_DIR": str(folder / "state"),
        "EDGED_MQTT__HOST": "127.0.0.1",
        "EDGED_MQTT__PORT": str(port),
        "EDGED_ENGINE__NAME": engine,
    }
    log = folder / "edged.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "edged", "run"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    node = Node(port)
    try:
        node.wait_until_serving()
        yield node
    except queue.Empty:
        raise RuntimeError(f"edged did not answer; its log: {log.read_text()[-2000:]}") from None
    finally:
        node.close()
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
