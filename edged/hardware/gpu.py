"""The NVIDIA GPUs of this machine, through NVML.

The binding is the optional package ``nvidia-ml-py``. Without it, without a driver or
without a GPU there is simply none; a board whose NVML answers only half (Jetson) gets
``None`` for the rest.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU. Sizes are of its own memory; ``None`` where NVML does not say (Jetson)."""

    name: str
    total_bytes: int | None
    free_bytes: int | None
    compute_capability: str | None
    driver: str | None


def gpus(nvml: Any = None) -> tuple[Gpu, ...]:
    """Every GPU that NVML knows, in its order; ``nvml`` stands in for the module pynvml."""
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        count = _ask(nvml, nvml.nvmlDeviceGetCount) or 0
        handles = (_ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index) for index in range(count))
        return tuple(_describe(nvml, handle) for handle in handles if handle is not None)
    finally:
        _ask(nvml, nvml.nvmlShutdown)


def _describe(nvml: Any, handle: Any) -> Gpu:
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Gpu(
        name=_text(_ask(nvml, nvml.nvmlDeviceGetName, handle)) or "unknown GPU",
        total_bytes=int(memory.total) if memory else None,
        free_bytes=int(memory.free) if memory else None,
        compute_capability=".".join(map(str, capability)) if capability else None,
        driver=_text(_ask(nvml, nvml.nvmlSystemGetDriverVersion)),
    )


def _ask(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except nvml.NVMLError:  # each figure by itself may be "not supported"
        return None


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value  # bytes in older bindings
