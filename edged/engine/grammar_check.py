"""Compiles a grammar where a crash does no harm: a process of its own, with little to spend.

``python -m edged.engine.grammar_check`` reads the grammar from its standard input. Exit code 0 says
that it can be used, 1 that llama.cpp refuses it; whatever else ends it, refuses it as well. The
vocabulary is the bundled model's: what a grammar costs to compile does not depend on it.
"""

import math
import os
import resource
import sys
import time

import llama_cpp as lib
import numpy as np

from edged.engine import llama_backends
from edged.engine.llama_grammar import LlamaGrammar
from edged.errors import EngineFailed
from edged.models.bundled import BUNDLED_MODEL

CPU_S = 5
MEMORY_BYTES = 512 * 2**20
"""Both beside what starting and the library have taken."""
WALK_TOKENS = 64


def main() -> None:
    """See the module."""
    text = sys.stdin.buffer.read().decode()
    lib.llama_log_set(_silent, None)
    llama_backends.start()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = lib.llama_model_load_from_file(os.fsencode(BUNDLED_MODEL), parameters)
    vocabulary = lib.llama_model_get_vocab(model)
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (a pseudo file, one number)
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    limit_bytes = used_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    limit_s = math.ceil(time.process_time()) + CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        grammar = LlamaGrammar(vocabulary, text)
        walk(grammar, lib.llama_vocab_n_tokens(vocabulary), vocabulary)
    except EngineFailed as failure:
        sys.stdout.write(str(failure))
        raise SystemExit(1) from None


def walk(grammar: LlamaGrammar, size: int, vocabulary: object) -> None:
    """Hold the whole vocabulary against it, and go a way with it: stacks may multiply later."""
    generator = np.random.Generator(np.random.PCG64(1))
    for _ in range(WALK_TOKENS):
        logits = generator.random(size, dtype=np.float32)
        token = int(grammar.mask(logits).argmax())
        if lib.llama_vocab_is_eog(vocabulary, token):
            return
        grammar.accept(token)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(_level: int, _text: bytes, _user_data: object) -> None:
    """A refused grammar is told in one line, by its exit code."""


if __name__ == "__main__":
    main()
