"""Tries one engine out: ``python -m edged.cli.engine_probe NAME FOLDER``.

A process of its own for ``edged doctor``, since a library that was built for another processor
ends it. It prints a line of JSON when the library is loaded, and another when the bundled model
has given a token.
"""

import importlib
import json
import sys
from importlib.metadata import version
from typing import Any

from edged.engine.frames import Load
from edged.engine.protocol import BatchChunk, Logits
from edged.engine.registry import open_engine


class _First:
    """``Picker``: any token will do."""

    def pick(self, logits: Logits) -> int:
        return int(logits.argmax())


def _main(name: str, folder: str) -> None:
    library = importlib.import_module(name)
    package = {"llama_cpp": "llama-cpp-python"}.get(name, name)
    loaded: dict[str, Any] = {"version": version(package), "system_info": "", "gpu": False}
    if name == "llama_cpp":
        # Only with llama-cpp-python is this module there to be imported.
        importlib.import_module("edged.engine.llama_backends").start()
        loaded["system_info"] = library.llama_print_system_info().decode()
        loaded["gpu"] = bool(library.llama_supports_gpu_offload())
    _say(loaded)
    load = Load(name, None, folder, ctx=64, slots=1, threads=1, echo_step_ms=0)
    engine = open_engine(load)
    tokens = engine.tokenise("on", parse_special=False)
    engine.decode([BatchChunk(0, 0, tokens, outputs=1)])
    _say({"token": engine.sample(0, _First())})


def _say(fact: dict[str, Any]) -> None:
    print(json.dumps(fact), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
