"""Writes the parts of a GGUF file, and lets a file appear whole or not at all.

Source: the GGUF specification of the ggml project (docs/gguf.md, version 3).
"""

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edged.models.gguf_format import SCALARS, GgmlType, ValueType
from edged.models.whole import sync

ALIGNMENT: Final = 32  # bytes; what a file without general.alignment has

PARTIAL: Final = ".partial"
"""How the names of files end that are not whole yet."""

_VERSION: Final = 3


def padded(size: int, alignment: int) -> int:
    """``size`` rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def preamble(tensors: int, keys: int, version: int = _VERSION) -> bytes:
    """What a file begins with."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def string(text: str | bytes) -> bytes:
    """A text as it stands in a file: its length in bytes before it."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def string_key(name: str, text: str) -> bytes:
    """A key whose value is a text."""
    return string(name) + struct.pack("<I", ValueType.STRING) + string(text)


def scalar_key(name: str, type_: ValueType, value: float) -> bytes:
    """A key whose value is a number, or a truth value."""
    return string(name) + struct.pack("<I", type_) + SCALARS[type_].pack(value)


def strings_key(name: str, texts: Sequence[str | bytes]) -> bytes:
    """A key whose value is an array of texts."""
    return _array_head(name, ValueType.STRING, len(texts)) + b"".join(map(string, texts))


def numbers_key(name: str, type_: ValueType, values: Sequence[float]) -> bytes:
    """A key whose value is an array of numbers."""
    layout = SCALARS[type_].format.removeprefix("<")
    return _array_head(name, type_, len(values)) + struct.pack(f"<{len(values)}{layout}", *values)


def zeros_key(name: str, file_bytes: int) -> bytes:
    """A key that takes ``file_bytes`` bytes, name and all, and says nothing."""
    head = len(_array_head(name, ValueType.UINT8, 0))
    count = file_bytes - head
    return _array_head(name, ValueType.UINT8, count) + bytes(count)


def tensor_entry(name: str, shape: Sequence[int], type_: GgmlType, offset_bytes: int) -> bytes:
    """What the header says of a tensor; the offset counts from where the weights begin."""
    return (
        string(name)
        + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        + struct.pack("<IQ", type_.id, offset_bytes)
    )


def _array_head(name: str, element: ValueType, count: int) -> bytes:
    return string(name) + struct.pack("<IIQ", ValueType.ARRAY, element, count)


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A file that takes the name ``target`` when all of it is on the disk, or vanishes."""
    descriptor, name = tempfile.mkstemp(PARTIAL, f".{target.name}.", target.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        sync(partial)
        partial.chmod(0o644)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(target.parent)
