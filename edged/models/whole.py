"""Small files that are there whole or not at all, whenever the power goes."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes a small file that has either its old content or its new. Raises ``OSError``."""
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text + "\n", "utf-8")
    partial.chmod(0o644)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until what was written to a file or folder is on the disk. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
