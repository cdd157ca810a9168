"""What the clients ask, drawn from a seeded generator: requests that the bundled model knows."""

import json
import random
from dataclasses import dataclass
from typing import Any

from tools.tiny_model.conversations import conversation

MAX_TOKENS = 60
_ODD_SHARE = 0.15


@dataclass(frozen=True)
class Asked:
    """One prompt: whose, what, and the bytes of its payload, each time the same."""

    client: str
    id: str
    text: str
    payload: bytes
    streams: bool

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other."""
        return (self.client, self.id)


def prompts(count: int, clients: int, seed: int) -> list[Asked]:
    """So many prompts by so many clients in turn, no two the same; greedy, with a seed."""
    rng = random.Random(f"chaos {seed}")
    said: set[str] = set()
    found: list[Asked] = []
    while len(found) < count:
        text = conversation(rng).turns[0][0]
        if text in said or not text.strip():
            continue
        said.add(text)
        at = len(found)
        manner: dict[str, Any] = {}
        if rng.random() < _ODD_SHARE:
            manner = rng.choice(({"stream": False}, {"chunk": "sentence"}, {"priority": 9}))
        prompt_id = f"prompt-{at}"
        body = {"id": prompt_id, "prompt": text, "temperature": 0, "seed": at, **manner}
        payload = json.dumps(body | {"max_tokens": MAX_TOKENS}).encode()
        client = f"client-{at % clients:02}"
        found.append(Asked(client, prompt_id, text, payload, manner.get("stream", True)))
    return found
