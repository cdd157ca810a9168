"""What llama.cpp computes with: built into the library, or files beside it to choose from."""

import os
from pathlib import Path
from typing import Any

import llama_cpp as lib


def start() -> None:
    """Before a model is loaded; once or again.

    A wheel for every processor of an architecture has its kernels in a file for each generation
    of them, and the library takes the best, but only when it is told to look.
    """
    lib.llama_backend_init()
    # Found through libllama. A wheel has no links, so libggml.so and the libggml.so.0 that it needs
    # are two files: to load the one by its name makes a second library, with a list of its own.
    ggml: Any = lib.llama_cpp._lib  # noqa: SLF001 (no other way)
    if ggml.ggml_backend_reg_count() == 0:
        folder = Path(lib.__file__).with_name("lib")
        ggml.ggml_backend_load_all_from_path(os.fsencode(folder))
