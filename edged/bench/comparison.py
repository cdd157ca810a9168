"""One comparison, from a model file to results as `edged bench --json` gives them."""

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edged.bench import results
from edged.bench.conditions import conditions
from edged.bench.direct import Direct
from edged.bench.node import EdgedNode
from edged.bench.rounds import Progress, Rounds, Work
from edged.bench.servers import LlamaCppServer, LlamaServer, Xllamacpp, require
from edged.bench.sides import Setup, Side
from edged.engine.frames import Load
from edged.errors import ConfigError
from edged.hardware.bandwidth import measured_bandwidth
from edged.hardware.machine import read_machine
from edged.hardware.memory import available
from edged.models.configuration import CTX_STEP
from edged.models.gguf import Header, check_model, read_header
from edged.models.gguf_writer import padded
from edged.models.plan import threads_worth
from edged.models.shape import ModelShape, shape_of
from edged.models.shape_file import RANDOM_WEIGHTS
from edged.models.sizing import kv_token_bytes
from edged.settings import EngineSettings

PEER_NAMES: Final = ("xllamacpp", "llama_server", "llama_cpp_server", "direct")
_TEMPLATE_TOKENS: Final = 64
_SIDE_BYTES: Final = 300 * 2**20
"""Of a side beside weights and cache: scratch, libraries, the interpreter."""


@dataclass(frozen=True)
class Outcome:
    """What a comparison found; ``load`` is what edged's worker was told to load."""

    results: dict[str, Any]
    load: Load


def threads_for(header: Header) -> int:
    """As many as a plan gives where nothing is measured."""
    return min(read_machine().cores, threads_worth(header.weights_bytes))


def context(header: Header, work: Work) -> int:
    """Tokens a client; a prompt is only about as long as asked for. Raises ``ConfigError``."""
    wanted = work.prompt_tokens * 5 // 4 + work.tokens + _TEMPLATE_TOKENS
    if work.prompt_tokens + work.tokens + _TEMPLATE_TOKENS > header.context_length:
        raise ConfigError(
            f"{work.prompt_tokens} tokens of prompt and {work.tokens} of answer do not fit into "
            f"the {header.context_length} that {header.name} holds; ask for fewer"
        )
    return min(padded(wanted, CTX_STEP), header.context_length)


def compare(
    model: Path,
    work: Work,
    against: str | None,
    settings: EngineSettings,
    port: int,
    *,
    threads: int | None = None,
    at_defaults: bool = False,
    progress: Progress = lambda _step: None,
) -> Outcome:
    """Measure edged on this file, beside a peer if there is one.

    ``port`` is of a broker on this machine; ``settings`` the operator's. Both sides get ``threads``
    (unset: the operator's, else as many as a plan would give), unless each is ``at_defaults``.
    Raises ``EngineUnavailable`` for a peer that is not installed, and ``EdgedError`` where a side
    fails.
    """
    if against is not None:
        require(against)
    header = read_header(model)
    check_model(header)
    given: int | None = threads or settings.threads or threads_for(header)
    if at_defaults:
        given, settings = None, settings.model_copy(update={"threads": None})
    is_shape = header.name.endswith(RANDOM_WEIGHTS)
    setup = Setup(model, work.clients, context(header, work), given, is_shape)
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as name:
        folder = Path(name)
        node = EdgedNode(setup, settings, port, folder, max_tokens=work.tokens)
        peer = _peer(against, node, setup, folder)
        shape = shape_of(header)
        both_fit = peer is None or _fit(header, shape, setup)
        progress("measuring the memory's speed")
        read_bytes_per_s = measured_bandwidth(node.state_dir, read_machine().identity)
        rounds = Rounds(node, peer, work, both_fit=both_fit, progress=progress)
        pairs = rounds.run()
    found = results.of(pairs, shape, node.load, read_bytes_per_s)
    found["conditions"] = conditions(header, work, setup, node, peer) | {
        "both_loaded": both_fit,
        "peer_stopped_while_idle": rounds.peer_is_stopped,
        "load_average_before": [round(each, 2) for each in load_before],
        "load_average_after": [round(each, 2) for each in os.getloadavg()],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Outcome(found, node.load)


def _peer(against: str | None, node: EdgedNode, setup: Setup, folder: Path) -> Side | None:
    if against is None:
        return None
    if against == "direct":
        return Direct(lambda: node.load, folder)
    if against == "xllamacpp":
        return Xllamacpp(setup, lambda: node.load, folder)
    if against == "llama_server":
        return LlamaServer(setup, lambda: node.load, folder)
    return LlamaCppServer(setup, lambda: node.load, folder)


def _fit(header: Header, shape: ModelShape, setup: Setup) -> bool:
    """Whether both sides' memory is there at once, the file's pages of one of them included."""
    cache_bytes = kv_token_bytes(shape, "f16") * setup.ctx * setup.clients
    side_bytes = header.weights_bytes + cache_bytes + _SIDE_BYTES
    return 2 * side_bytes + header.weights_bytes < available().bytes
