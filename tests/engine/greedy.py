"""Greedy answers of one engine, for comparing engines; run as a program of its own.

Each engine's native library has a process to itself: they hold two versions of ggml.

    python greedy.py ENGINE STATE_DIR < prompts.json > answers.json
"""

import json
import sys

from edged.engine.chat import ChatEncoder
from edged.engine.frames import Load
from edged.engine.protocol import BatchChunk, Engine, Logits
from edged.engine.registry import open_engine
from edged.messages import ChatMessage

MAX_TOKENS = 60


class Greedy:
    """Picks the best token and remembers how far ahead of the second it was."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    def pick(self, logits: Logits) -> int:
        best = int(logits.argmax())
        top = float(logits[best])
        second = float(max(logits[:best].max(initial=-1e30), logits[best + 1 :].max(initial=-1e30)))
        self.gaps.append(top - second)
        return best


def answer(engine: Engine, chat: ChatEncoder, prompt: str) -> dict[str, object]:
    """The prompt's ids, the answer's ids and the gap at each of them."""
    ids = chat.encode([ChatMessage("user", prompt)])
    greedy, said = Greedy(), []
    chunk, position = ids, 0
    while len(said) < MAX_TOKENS:
        engine.decode([BatchChunk(0, position, chunk, outputs=1)])
        position += len(chunk)
        token = engine.sample(0, greedy)
        said.append(token)
        chunk = [token]
        if token in engine.chat.stop_ids:
            break
    engine.forget(0, 0)
    text = b"".join(engine.token_bytes(token) for token in said).decode(errors="replace")
    return {"ids": ids, "said": said, "gaps": greedy.gaps, "text": text}


def main() -> None:
    name, state_dir = sys.argv[1:]
    load = Load(
        engine=name,
        model_path=None,
        state_dir=state_dir,
        ctx=None,
        slots=1,
        threads=1,
        echo_step_ms=0,
    )
    engine = open_engine(load)
    chat = ChatEncoder(engine)
    json.dump([answer(engine, chat, prompt) for prompt in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
