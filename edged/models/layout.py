"""Where the store keeps its files. Imports nothing more, since the daemon asks, too."""

from pathlib import Path


def weights_path(store: Path, name: str) -> Path:
    return store / f"{name}.gguf"


def manifest_path(store: Path, name: str) -> Path:
    return store / f"{name}.json"
