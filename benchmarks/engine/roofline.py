"""How near decoding comes to what the memory, and the arithmetic, of this machine can do.

``python -m benchmarks.engine.roofline MODEL ROUNDS`` is one engine alone in a process. Each round
measures the memory's read speed, then decoding with all threads and with one, then reading of a
prompt: the same dot products of integers, with weights that are used again for each of its
tokens, so bound by arithmetic alone.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edged.engine.frames import Load
from edged.engine.handle import WORKER_ENVIRONMENT
from edged.engine.protocol import BatchChunk, Engine
from edged.engine.registry import open_engine
from edged.hardware.machine import read_machine
from edged.models.gguf import read_header
from edged.models.shape import shape_of
from edged.models.sizing import kv_token_bytes, read_bytes_a_token

CTX = 512
PROMPT_TOKENS = 64
DECODED_TOKENS = 24


def roofline(model: Path, rounds: int) -> dict[str, Any]:
    """Pair by pair; speeds in tokens a second, ``read_bytes_per_s`` of the memory."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine.roofline", model, str(rounds)],
        env=WORKER_ENVIRONMENT | os.environ,
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(model: Path, rounds: int) -> dict[str, Any]:
    """In this process."""
    shape = shape_of(read_header(model))
    cores = read_machine().cores
    load = Load("llama_cpp", str(model), "", CTX, 1, cores, 0.0, flash_attention=False)
    engine = open_engine(load)
    filled = PROMPT_TOKENS + DECODED_TOKENS // 2
    found: dict[str, Any] = {
        "threads": cores,
        "bytes_a_token": round(read_bytes_a_token(shape) + kv_token_bytes(shape, "f16") * filled),
        "rounds": [],
    }
    _decode_per_s(engine, cores)
    for _ in range(rounds):
        bandwidth = subprocess.run(
            [sys.executable, "-m", "edged.hardware.bandwidth"], check=True, capture_output=True
        )
        found["rounds"].append(
            {
                **json.loads(bandwidth.stdout),
                "prefill_tokens_per_s": _prefill_per_s(engine, cores),
                "decode_tokens_per_s": _decode_per_s(engine, cores),
                "decode_tokens_per_s_of_one_thread": _decode_per_s(engine, 1),
            }
        )
    return found


def _prefill_per_s(engine: Engine, threads: int) -> float:
    engine.set_threads(threads)
    engine.forget(0, 0)
    began_s = time.monotonic()
    engine.decode([BatchChunk(0, 0, list(range(100, 100 + PROMPT_TOKENS)), outputs=1)])
    return PROMPT_TOKENS / (time.monotonic() - began_s)


def _decode_per_s(engine: Engine, threads: int) -> float:
    """Behind a prompt; the first step, in which caches and threads settle, is not counted."""
    _prefill_per_s(engine, threads)
    began_s = 0.0
    for step in range(DECODED_TOKENS + 1):
        if step == 1:
            began_s = time.monotonic()
        engine.decode([BatchChunk(0, PROMPT_TOKENS + step, [500 + step], outputs=1)])
    return DECODED_TOKENS / (time.monotonic() - began_s)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
