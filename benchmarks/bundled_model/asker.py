"""Prompts to one node, one at a time."""

import json
import queue
import uuid
from typing import Any

from benchmarks.bus import PATIENCE_S, ROOT, Client


class Asker:
    """Asks, and waits for the whole answer."""

    def __init__(self, port: int, node: str) -> None:
        self._node = node
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()
        self._client = Client(port, lambda _topic, payload: self._replies.put(json.loads(payload)))
        self._client.subscribe(f"{ROOT}/{node}/completion/anonymous/+")

    def close(self) -> None:
        """Leave the broker."""
        self._client.close()

    def ask(self, prompt: str, max_tokens: int) -> str:
        """The greedy answer.

        Raises ``RuntimeError`` when the node refuses, ``queue.Empty`` when it does not answer.
        """
        body = {
            "id": uuid.uuid4().hex,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": False,
        }
        self._client.publish(f"{ROOT}/{self._node}/prompt", body)
        while True:
            reply = self._replies.get(timeout=PATIENCE_S)
            if reply.get("id") != body["id"]:
                continue
            if reply["type"] == "failed":
                raise RuntimeError(f"{prompt!r} failed: {reply}")
            if reply["type"] == "done":
                return str(reply["text"])
