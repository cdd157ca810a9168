"""What llama.cpp computes with: built into the library, or files beside it to choose from."""

import os
from pathlib import Path

import llama_cpp as lib
from llama_cpp._ggml import libggml


def start() -> None:
    """Before a model is loaded; once or again.

    A wheel for every processor of an architecture has its kernels in a file for each generation
    of them, and the library takes the best, but only when it is told to look.
    """
    lib.llama_backend_init()
    if libggml.ggml_backend_reg_count() == 0:
        folder = Path(lib.__file__).with_name("lib")
        libggml.ggml_backend_load_all_from_path(os.fsencode(folder))
