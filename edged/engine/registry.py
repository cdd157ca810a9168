"""Which engine serves a model: by name, or the best that is installed and can load it."""

import importlib
from collections.abc import Callable
from pathlib import Path

from edged.engine.frames import Load
from edged.engine.protocol import Engine
from edged.errors import EngineUnavailable
from edged.models.bundled import BUNDLED_MODEL
from edged.models.gguf import Header, check_model, read_header

# name → module, class, what to install; the best first.
_WITH_WEIGHTS = {
    "llama_cpp": ("edged.engine.llama_cpp", "LlamaCppEngine", "edged[llama-cpp]"),
    "ctransformers": ("edged.engine.ctransformers", "CtransformersEngine", "edged[ctransformers]"),
}
ENGINE_NAMES = ("auto", *_WITH_WEIGHTS, "echo")


def open_engine(load: Load) -> Engine:
    """Load the model with the engine that ``load`` names.

    Raises ``ModelFileError`` for bad weights, before native code sees them, and
    ``EngineUnavailable`` when no engine can serve them; it says what to install.
    """
    if load.engine == "echo":
        from edged.engine.echo import EchoEngine  # noqa: PLC0415 (an optional backend's)

        return EchoEngine(load)
    if load.engine not in ENGINE_NAMES:
        raise EngineUnavailable(
            f"engine.name is {load.engine!r}; known are {', '.join(ENGINE_NAMES)}"
        )
    header = read_header(Path(load.model_path or BUNDLED_MODEL))
    check_model(header)
    names = list(_WITH_WEIGHTS) if load.engine == "auto" else [load.engine]
    reasons = []
    for name in names:
        try:
            return _engine_class(name)(load, header)
        except EngineUnavailable as error:
            reasons.append(str(error))
    raise EngineUnavailable(f"no engine can serve {header.path}: {'; '.join(reasons)}")


def _engine_class(name: str) -> Callable[[Load, Header], Engine]:
    module, kind, package = _WITH_WEIGHTS[name]
    try:
        found: Callable[[Load, Header], Engine] = getattr(importlib.import_module(module), kind)
    except (ImportError, OSError) as error:
        # OSError: the wheel's library does not fit this processor or libc.
        raise EngineUnavailable(
            f"{name} is not installed or cannot start ({error}); install it with: "
            f"pip install '{package}'"
        ) from error
    return found
