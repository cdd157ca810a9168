"""What a GGUF file is made of: its value types, its tensor types, and a reader of its bytes.

Sources: the GGUF specification of the ggml project (docs/gguf.md, version 3) and the
block layouts of ggml (ggml-common.h). Little-endian throughout.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from edged.errors import ModelFileError

MAX_HEADER_BYTES: Final = 64 << 20  # the largest known vocabularies take about 20 MiB
MAX_STRINGS: Final = 1 << 21  # 260,000 tokens and their 500,000 merges, and room
MAX_STRING_BYTES: Final = 1 << 20  # chat templates take some 10 KiB
MAX_TEXT_BYTES: Final = 8 << 20  # all keys, names and texts together; four times that in memory
ARRAY_HEAD_BYTES: Final = 16  # the number of ARRAY, the elements' type, their count
WINDOW_BYTES: Final = 256 << 10

_U64: Final = struct.Struct("<Q")


class ValueType(IntEnum):
    """The type of a metadata value, as numbered in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


SCALARS: Final = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<B"),
    ValueType.UINT64: _U64,
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}


@dataclass(frozen=True)
class GgmlType:
    """How a tensor's weights are stored: rows of blocks of ``block_weights`` weights each."""

    name: str
    id: int
    block_weights: int
    block_bytes: int


GGML_TYPES: Final = {
    id_: GgmlType(name, id_, weights, size)
    for name, id_, weights, size in (
        ("F32", 0, 1, 4),
        ("F16", 1, 1, 2),
        ("Q4_0", 2, 32, 18),
        ("Q4_1", 3, 32, 20),
        ("Q5_0", 6, 32, 22),
        ("Q5_1", 7, 32, 24),
        ("Q8_0", 8, 32, 34),
        ("Q8_1", 9, 32, 36),
        ("Q2_K", 10, 256, 84),
        ("Q3_K", 11, 256, 110),
        ("Q4_K", 12, 256, 144),
        ("Q5_K", 13, 256, 176),
        ("Q6_K", 14, 256, 210),
        ("Q8_K", 15, 256, 292),
        ("IQ2_XXS", 16, 256, 66),
        ("IQ2_XS", 17, 256, 74),
        ("IQ3_XXS", 18, 256, 98),
        ("IQ1_S", 19, 256, 50),
        ("IQ4_NL", 20, 32, 18),
        ("IQ3_S", 21, 256, 110),
        ("IQ2_S", 22, 256, 82),
        ("IQ4_XS", 23, 256, 136),
        ("I8", 24, 1, 1),
        ("I16", 25, 1, 2),
        ("I32", 26, 1, 4),
        ("I64", 27, 1, 8),
        ("F64", 28, 1, 8),
        ("IQ1_M", 29, 256, 56),
        ("BF16", 30, 1, 2),
        ("TQ1_0", 34, 256, 54),
        ("TQ2_0", 35, 256, 66),
        ("MXFP4", 39, 32, 17),
        ("NVFP4", 40, 64, 36),
        ("Q1_0", 41, 128, 18),
        ("Q2_0", 42, 64, 18),
    )
}

# general.file_type (llama.h, enum llama_ftype): what the quantiser was asked for.
FILE_TYPES: Final = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}


class ByteReader:
    """Reads a file forwards through a small window.

    A header of 20 MiB costs a quarter of one in memory, and a file that shrinks while
    it is read is an error rather than the SIGBUS of a memory map. Reading past
    ``file_bytes``, or past what a header may take, is a ``ModelFileError``.
    """

    def __init__(self, descriptor: int, path: Path, *, file_bytes: int, position: int = 0) -> None:
        self.path = path
        self._descriptor = descriptor
        self._file_bytes = file_bytes
        self._window = b""
        self._window_start = position
        self._at = 0
        self._strings_left = MAX_STRINGS
        self._text_bytes_left = MAX_TEXT_BYTES

    @property
    def position(self) -> int:
        """Bytes from the beginning of the file to the next one read."""
        return self._window_start + self._at

    def error(self, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {problem}")

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes."""
        if self._at + count > len(self._window):
            self._require(count, what)
            position = self.position
            self._window = os.pread(self._descriptor, max(count, WINDOW_BYTES), position)
            self._window_start, self._at = position, 0
            if len(self._window) < count:
                raise self.error(f"the file shrank while {what} was read; copy it again")
        start = self._at
        self._at += count
        return self._window[start : self._at]

    def skip(self, count: int, what: str) -> None:
        """Passes over ``count`` bytes without reading them."""
        self._require(count, what)
        self._at += count

    def number(self, layout: struct.Struct, what: str) -> Any:
        """One number of that layout."""
        return layout.unpack(self.take(layout.size, what))[0]

    def string(self, what: str) -> bytes:
        """One string: its length in 8 bytes, then its bytes."""
        length: int = self.number(_U64, what)
        self._require(length, what)
        if length > MAX_STRING_BYTES:
            raise self.error(f"{what} is a string of {length} bytes; at most {MAX_STRING_BYTES}")
        return self.take(length, what)

    def text(self, what: str) -> str:
        """One string that must be UTF-8 without NUL, as keys and tensor names must."""
        raw = self.string(what)
        self._text_bytes_left -= len(raw)
        if self._text_bytes_left < 0:
            raise self.error(f"more than {MAX_TEXT_BYTES} bytes of text up to {what}")
        try:
            text = raw.decode()
        except UnicodeDecodeError as e:
            raise self.error(f"{what} is not UTF-8 ({raw[:40]!r}); the file is damaged") from e
        if "\0" in text:
            raise self.error(f"{what} contains a NUL character ({text[:40]!r})")
        return text

    def strings(self, count: int, what: str) -> Iterator[bytes]:
        """``count`` strings, one after another."""
        self._count_strings(count, what)
        for _ in range(count):
            yield self.string(what)

    def skip_strings(self, count: int, what: str) -> None:
        """Passes over ``count`` strings; a tight loop, since vocabularies are long."""
        self._count_strings(count, what)
        length_at = _U64.unpack_from
        while count:
            window, at = self._window, self._at
            last = len(window) - _U64.size
            size = len(window)
            while count and at <= last:
                end = at + _U64.size + length_at(window, at)[0]
                if end > size:
                    break
                at = end
                count -= 1
            self._at = at
            if count:  # the window ends inside this string
                self.skip(self.number(_U64, what), what)
                count -= 1

    def _count_strings(self, count: int, what: str) -> None:
        self._require(count * _U64.size, what)
        self._strings_left -= count
        if self._strings_left < 0:
            raise self.error(f"more than {MAX_STRINGS} strings up to {what}; no model has so many")

    def _require(self, count: int, what: str) -> None:
        position = self.position
        left = self._file_bytes - position
        if count > left:
            raise self.error(
                f"{what} claims {count} bytes at byte {position}, but only {max(left, 0)} are left "
                f"of {self._file_bytes}; the file is truncated or damaged, fetch it again",
            )
        if position + count > MAX_HEADER_BYTES:
            raise self.error(
                f"{what} reaches byte {position + count}; a header of more than "
                f"{MAX_HEADER_BYTES} bytes is none that edged reads",
            )
