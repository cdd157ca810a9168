"""The worker process: holds the weights and runs the step loop, and nothing else.

Started by ``edged.engine.handle`` as ``python -m edged.engine.worker FD``, where FD is one
end of a socket pair. It ends when the socket does, whatever it is doing at that moment.
"""

import contextlib
import ctypes
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edged.engine.costs import FIRST_STEP_S, StepCosts
from edged.engine.frames import (
    LENGTH,
    Cancel,
    Down,
    ForgetPrefixes,
    Frame,
    Heartbeat,
    Load,
    LoadFailed,
    Ready,
    Submit,
    Up,
    decode,
    encode,
)
from edged.engine.grammar_gate import GrammarGate
from edged.engine.protocol import BatchChunk, Engine, Logits
from edged.engine.registry import open_engine
from edged.engine.step_loop import StepLoop
from edged.errors import EdgedError, EngineFailed, ModelFileError
from edged.messages import Pace

HEARTBEAT_S = 1.0
PROCESS_NAME = b"edged-engine"
# The kernel's out-of-memory killer should pick the worker, never the daemon.
OOM_SCORE_ADJUSTMENT = "800"
_PR_SET_NAME = 15
_M_MMAP_THRESHOLD = -3  # malloc.h
_GIVEN_BACK_BYTES = 1 << 20
FIRST_WIDTHS = (1, 4, 8, 16)
"""Tokens of the steps that are measured at the start: one, and whole blocks of rows."""
FIRST_TIMES = 3
"""How often each is; the first of a width sets up its graph, and the least time counts."""


class Channel:
    """Our end of the socket pair."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, frame: Up) -> None:
        """Any thread may send; a daemon that is gone ends the process."""
        try:
            with self._sending:
                self._connection.sendall(encode(frame))
        except OSError:
            os._exit(0)

    def receive(self) -> Frame | None:
        """The next frame, ``None`` when the daemon has closed its end."""
        head = self._reader.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack(head)
        body = self._reader.read(length)
        return decode(body) if len(body) == length else None


def main() -> None:
    """Serve one daemon until it closes the socket."""
    # Ctrl-C and systemd reach the whole group; the daemon decides, and closes the socket.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _present_ourselves()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    commands: queue.SimpleQueue[Down | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(channel, commands), name="commands", daemon=True).start()
    load = commands.get()
    if not isinstance(load, Load):
        raise TypeError(f"the first frame is {type(load).__name__}, not Load")
    began_s = time.monotonic()
    loop: StepLoop | None = None

    def heartbeat() -> Heartbeat:
        if loop is None:
            return Heartbeat(None, FIRST_STEP_S)
        step_began_s = loop.step_began_s
        age_s = None if step_began_s is None else time.monotonic() - step_began_s
        return Heartbeat(age_s, loop.step_predicted_s)

    threading.Thread(target=_beat, args=(channel, heartbeat), name="heartbeat", daemon=True).start()
    try:
        engine = open_engine(load)
        costs = first_answer(engine) if load.engine != "echo" else StepCosts()
        # A grammar that was tried is taken up by the next step; the word of it ends the waiting.
        gate = GrammarGate(lambda: commands.put(None))
        loop = StepLoop(
            engine,
            channel.send,
            gate=gate,
            costs=costs,
            system_prompt=load.system_prompt,
            speculates=load.speculates,
        )
    except EdgedError as error:
        channel.send(LoadFailed(str(error)))
        return
    memory = engine.memory()
    channel.send(
        Ready(
            engine=engine.name,
            model=engine.model_name,
            quantisation=engine.quantisation,
            ctx=engine.ctx,
            slots=engine.slots,
            load_s=time.monotonic() - began_s,
            weights_bytes=memory.weights_bytes,
            kv_cache_bytes=memory.kv_cache_bytes,
        )
    )
    while True:
        _take_commands(loop, commands)
        if not loop.idle:
            loop.step()


class _Finite:
    """A picker that wants numbers."""

    def pick(self, logits: Logits) -> int:
        if not np.isfinite(logits).all():
            raise EngineFailed("the logits are not finite")
        return int(logits.argmax())


def first_answer(engine: Engine) -> StepCosts:
    """Let a loaded model say something before anybody relies on it; what its steps take.

    Raises ``ModelFileError`` where it cannot: weights may be well-formed and still be noise.
    """
    prompt = engine.tokenise("Hello", parse_special=False)
    said = [engine.chat.bos_id, *prompt] if engine.chat.bos_id is not None else prompt
    costs = StepCosts()
    engine.set_threads(max(engine.threads))
    try:
        engine.decode([BatchChunk(0, 0, said, outputs=1)])
        token = engine.sample(0, _Finite())
        for width in FIRST_WIDTHS:
            took_s = math.inf
            for _ in range(FIRST_TIMES):
                began_s = time.monotonic()
                engine.decode([BatchChunk(0, len(said), [token] * width, outputs=1)])
                took_s = min(took_s, time.monotonic() - began_s)
                token = engine.sample(0, _Finite())
                engine.forget(0, len(said))
            costs.learn_decode(width, took_s)
        costs.learn_prefill(width, took_s)
    except EngineFailed as failure:
        raise ModelFileError(
            f"{engine.model_name} fails at its first answer: {failure}; the weights are damaged, "
            "fetch them again"
        ) from failure
    engine.forget(0, 0)
    return costs


def _take_commands(loop: StepLoop, commands: queue.SimpleQueue[Down | None]) -> None:
    """Take all that has come; wait while there is nothing to do, or a rest is due.

    ``None`` only ends the waiting.
    """
    with contextlib.suppress(queue.Empty):
        while True:
            wait_s = None if loop.idle else loop.rest_s
            command = commands.get(block=wait_s != 0, timeout=wait_s)
            if isinstance(command, Submit):
                loop.submit(command)
            elif isinstance(command, Cancel):
                loop.cancel(command)
            elif isinstance(command, ForgetPrefixes):
                loop.forget_prefixes()
            elif isinstance(command, Pace):
                loop.order(command)


def _read(channel: Channel, commands: queue.SimpleQueue[Down | None]) -> None:
    while True:
        frame = channel.receive()
        if frame is None:
            os._exit(0)  # the main thread may be deep in native code
        if isinstance(frame, Down):
            commands.put(frame)


def _beat(channel: Channel, heartbeat: Callable[[], Heartbeat]) -> None:
    while True:
        channel.send(heartbeat())
        time.sleep(HEARTBEAT_S)


def _present_ourselves() -> None:
    """What ps shows, whom the kernel kills first, what malloc keeps: good to have, not needed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME, 0, 0, 0)
    # glibc raises the size from which freed memory goes back to the system as it sees larger
    # ones; a model's staging buffers, some 30 MiB, would then stay with us.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT, "ascii")


if __name__ == "__main__":
    main()
