"""An engine alone in a process, without daemon, worker or broker: the least that can be done.

``python -m edged.bench.direct_loop`` reads lines of JSON: first what to load, then orders, each a
list of prompts. They are read one after another in whole batches, then answered together, a token
each a step, greedily. For every order a line goes back that says when each token was chosen, by
CLOCK_MONOTONIC.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edged.engine.chat import ChatEncoder
from edged.engine.frames import Load
from edged.engine.protocol import BatchChunk, Engine, Logits
from edged.engine.registry import open_engine
from edged.errors import EdgedError
from edged.messages import ChatMessage


class _Greedy:
    def pick(self, logits: Logits) -> int:
        return int(logits.argmax())


@dataclass
class _Slot:
    """One prompt, its answer so far, and when each token of it was there."""

    index: int
    prompt: list[int]
    answer: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)

    def sample(self, engine: Engine) -> None:
        self.answer.append(engine.sample(self.index, _Greedy()))
        self.token_s.append(time.monotonic())

    def goes_on(self, engine: Engine, max_tokens: int) -> bool:
        return (
            self.answer[-1] not in engine.chat.stop_ids
            and len(self.answer) < max_tokens
            and len(self.prompt) + len(self.answer) < engine.ctx
        )


def answer(
    engine: Engine, chat: ChatEncoder, prompts: Sequence[str], max_tokens: int, load: Load
) -> dict[str, Any]:
    """When it began, and what is known of each prompt; ``load`` has the threads."""
    began_s = time.monotonic()
    slots = [
        _Slot(index, chat.encode((ChatMessage("user", text),)))
        for index, text in enumerate(prompts)
    ]
    if load.threads is not None:
        engine.set_threads(load.threads_prefill or load.threads)
    for slot in slots:
        for begin in range(0, len(slot.prompt), engine.max_batch_tokens):
            part = slot.prompt[begin : begin + engine.max_batch_tokens]
            is_last = begin + len(part) == len(slot.prompt)
            engine.decode([BatchChunk(slot.index, begin, part, outputs=int(is_last))])
        slot.sample(engine)
    if load.threads is not None:
        engine.set_threads(load.threads)
    while going := [slot for slot in slots if slot.goes_on(engine, max_tokens)]:
        engine.decode(
            [
                BatchChunk(
                    slot.index, len(slot.prompt) + len(slot.answer) - 1, slot.answer[-1:], outputs=1
                )
                for slot in going
            ]
        )
        for slot in going:
            slot.sample(engine)
    for slot in slots:
        engine.forget(slot.index, 0)
    answers = [{"prompt_tokens": len(each.prompt), "token_s": each.token_s} for each in slots]
    return {"began_s": began_s, "answers": answers}


def main() -> None:
    """Until stdin ends."""
    # Native libraries may print; what is read of us goes where they do not know.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    load = Load(**json.loads(sys.stdin.readline()))
    engine = open_engine(load)
    chat = ChatEncoder(engine)
    print(json.dumps({"engine": engine.name}), file=replies, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if (threads := order["threads"]) is not None:
            load = replace(load, threads=threads, threads_prefill=threads)
        reply = answer(engine, chat, order["prompts"], order["max_tokens"], load)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    try:
        main()
    except EdgedError as error:
        sys.exit(str(error))
