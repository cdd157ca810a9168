"""Under what conditions something was measured."""

import importlib.metadata
import platform
from typing import Any

import edged
from edged.bench.node import EdgedNode
from edged.bench.rounds import Work
from edged.bench.servers import llama_cpp_build
from edged.bench.sides import Setup, Side
from edged.hardware.machine import read_machine
from edged.models.gguf import Header

_DISTRIBUTIONS = {"llama_cpp": "llama-cpp-python", "ctransformers": "ctransformers"}


def conditions(
    header: Header, work: Work, setup: Setup, node: EdgedNode, peer: Side | None
) -> dict[str, Any]:
    """What must be alike for figures to be comparable, and what explains them."""
    machine = read_machine()
    load = node.load
    engine = str(node.facts["engine"])
    distribution = _DISTRIBUTIONS.get(engine)
    return {
        "model": header.path.name,
        "model_name": header.name,
        "quantisation": header.quantisation,
        "file_bytes": header.path.stat().st_size,
        "subject": {
            "name": node.name,
            "version": edged.__version__,
            "engine": engine,
            "engine_version": importlib.metadata.version(distribution) if distribution else None,
            "build": llama_cpp_build() if engine == "llama_cpp" else None,
            "threads_decode": load.threads,
            "threads_prefill": load.threads_prefill or load.threads,
            "ctx": load.ctx,
            "slots": load.slots,
            "kv_type": load.kv_type,
            "load_mode": load.load_mode,
            "ubatch_tokens": load.ubatch_tokens,
            "gpu_layers": load.gpu_layers,
            "speculates": load.speculates,
        },
        "peer": {"name": peer.name, **peer.facts} if peer is not None else None,
        "threads": setup.threads if setup.threads is not None else "each side's default",
        "ctx": setup.ctx,
        "clients": work.clients,
        "prompt_tokens": work.prompt_tokens,
        "tokens": work.tokens,
        "rounds": work.rounds,
        "cpu_model": machine.cpu_model or machine.device_tree_model,
        "cores": machine.cores,
        "isa": list(machine.isa),
        "memory_bytes": machine.memory_bytes,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
