"""Reads the header of a GGUF file: metadata and where each tensor lies, never a weight.

Standard library only, since the daemon imports it. Whatever the file holds, the answer is
a ``Header`` or a ``ModelFileError`` that says what is wrong, within a second and in bounded
memory. A header that reads well may still describe no model that can be served:
``check_model`` decides that, and belongs before any native code.
"""

import os
import stat
import struct
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from edged.errors import ModelFileError
from edged.models.gguf_check import check_model
from edged.models.gguf_format import (
    GGML_TYPES,
    MAX_STRINGS,
    SCALARS,
    ByteReader,
    GgmlType,
    ValueType,
)
from edged.models.gguf_header import ArraySummary, Header, Span, TensorInfo, Value

__all__ = [
    "ArraySummary",
    "GgmlType",
    "Header",
    "Span",
    "TensorInfo",
    "Value",
    "ValueType",
    "check_model",
    "read_header",
]

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_KEYS: Final = 1 << 16
_MAX_TENSORS: Final = 1 << 16
_MAX_DIMENSIONS: Final = 4  # GGML_MAX_DIMS
_MAX_NAME_BYTES: Final = 63  # GGML_MAX_NAME less its terminator
_DEFAULT_ALIGNMENT: Final = 32
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


def read_header(path: str | os.PathLike[str], *, arrays: Collection[str] = ()) -> Header:
    """Reads the header of the GGUF file at ``path``.

    Arrays whose keys are not in ``arrays`` are passed over and stand in the metadata as
    an ``ArraySummary``. Raises ``ModelFileError`` for anything but a readable, whole and
    consistent file of version 2 or 3.
    """
    path = Path(path)
    if "\0" in str(path):
        raise ModelFileError(f"{str(path)!r} is no path: it contains a NUL character")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            raise ModelFileError(f"{path}: is {kind}; name the .gguf file itself")
        with path.open("rb", buffering=0) as file:
            reader = ByteReader(file.fileno(), path, file_bytes=found.st_size)
            return _read(reader, found.st_size, frozenset(arrays))
    except OSError as e:
        raise ModelFileError(f"{path}: cannot be read: {e.strerror or e}") from e


def _read(reader: ByteReader, file_bytes: int, arrays: frozenset[str]) -> Header:
    if not file_bytes:
        raise reader.error("the file is empty; fetch it again")
    magic = reader.take(len(_MAGIC), "the magic number")
    if magic != _MAGIC:
        raise reader.error(f"not a GGUF file: it begins with {magic!r} instead of {_MAGIC!r}")
    version = reader.number(_U32, "the version")
    if version not in _VERSIONS:
        if version & 0xFFFF == 0 and version:
            raise reader.error("a big-endian GGUF file; convert it to little-endian")
        raise reader.error(f"GGUF version {version}; edged reads 2 and 3: convert the model anew")
    tensor_count = _count(reader, "tensors", _MAX_TENSORS)
    key_count = _count(reader, "metadata keys", _MAX_KEYS)
    metadata, spans = _read_metadata(reader, key_count, arrays)
    alignment = _alignment(reader, metadata, spans)
    tensors, data_offset = _read_tensors(reader, tensor_count, alignment)
    _check_extents(reader, tensors, file_bytes)
    return Header(
        path=reader.path,
        version=version,
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        data_offset_bytes=data_offset,
        alignment=alignment,
        file_bytes=file_bytes,
        spans=MappingProxyType(spans),
    )


def _count(reader: ByteReader, what: str, limit: int) -> int:
    count: int = reader.number(_U64, f"the number of {what}")
    if count > limit:
        raise reader.error(f"claims {count} {what}; edged reads at most {limit}")
    return count


def _value_type(reader: ByteReader, what: str) -> ValueType:
    number = reader.number(_U32, f"the type of {what}")
    try:
        return ValueType(number)
    except ValueError:
        raise reader.error(f"{what} has the unknown value type {number}") from None


def _read_metadata(
    reader: ByteReader, count: int, arrays: frozenset[str]
) -> tuple[dict[str, Value], dict[str, Span]]:
    metadata: dict[str, Value] = {}
    spans: dict[str, Span] = {}
    for index in range(count):
        key = reader.text(f"the name of key {index}")
        if not key:
            raise reader.error(f"key {index} of the header has an empty name")
        if key in metadata:
            raise reader.error(f"the key {key} stands in the header twice")
        start = reader.position
        type_ = _value_type(reader, key)
        element = None
        if type_ is ValueType.ARRAY:
            element = _value_type(reader, f"the elements of {key}")
            metadata[key] = _read_array(reader, element, key, keep=key in arrays)
        elif type_ is ValueType.STRING:
            metadata[key] = reader.text(key)
        else:
            metadata[key] = _scalar(reader, type_, reader.number(SCALARS[type_], key), key)
        spans[key] = Span(type_, element, start, reader.position)
    return metadata, spans


def _scalar(reader: ByteReader, type_: ValueType, number: Any, what: str) -> int | float | bool:
    if type_ is ValueType.BOOL:
        if number > 1:
            raise reader.error(f"{what} should be true or false, but is {number}")
        return bool(number)
    value: int | float = number
    return value


def _read_array(reader: ByteReader, type_: ValueType, key: str, *, keep: bool) -> Value:
    length: int = reader.number(_U64, f"the length of {key}")
    if type_ is ValueType.ARRAY:
        raise reader.error(f"{key} is an array of arrays, which no engine reads")
    if type_ is ValueType.STRING:
        if keep:
            return tuple(reader.strings(length, key))
        reader.skip_strings(length, key)
        return ArraySummary(type_, length)
    layout = SCALARS[type_]
    if not keep:
        reader.skip(length * layout.size, key)
        return ArraySummary(type_, length)
    if length > MAX_STRINGS:
        raise reader.error(f"{key} has {length} elements; edged reads at most {MAX_STRINGS}")
    raw = reader.take(length * layout.size, key)
    return tuple(_scalar(reader, type_, number, key) for (number,) in layout.iter_unpack(raw))


def _alignment(reader: ByteReader, metadata: Mapping[str, Value], spans: Mapping[str, Span]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    declared = spans.get("general.alignment")
    if (declared and declared.type is not ValueType.UINT32) or not isinstance(alignment, int):
        raise reader.error(f"general.alignment should be an unsigned integer, not {alignment!r}")
    if alignment <= 0 or alignment & (alignment - 1):
        raise reader.error(f"general.alignment is {alignment}, which is not a power of two")
    return alignment


def _read_tensors(
    reader: ByteReader, count: int, alignment: int
) -> tuple[tuple[TensorInfo, ...], int]:
    found: dict[str, tuple[tuple[int, ...], GgmlType, int]] = {}
    for index in range(count):
        name = reader.text(f"the name of tensor {index}")
        if not name or len(name.encode()) > _MAX_NAME_BYTES:
            raise reader.error(
                f"tensor {index} has a name of {len(name.encode())} bytes ({name[:40]!r}); "
                f"1 to {_MAX_NAME_BYTES} are allowed",
            )
        if name in found:
            raise reader.error(f"the tensor {name} stands in the header twice")
        found[name] = _read_tensor(reader, name, alignment)
    data_offset = -(-reader.position // alignment) * alignment
    tensors = tuple(
        TensorInfo(name, shape, type_, data_offset + offset, _size_bytes(shape, type_))
        for name, (shape, type_, offset) in found.items()
    )
    return tensors, data_offset


def _read_tensor(
    reader: ByteReader, name: str, alignment: int
) -> tuple[tuple[int, ...], GgmlType, int]:
    dimensions = reader.number(_U32, f"the dimensions of {name}")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise reader.error(f"{name} has {dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are known")
    shape = tuple(reader.number(_U64, f"the shape of {name}") for _ in range(dimensions))
    if not all(0 < length < 1 << 63 for length in shape):
        raise reader.error(f"{name} has the impossible shape {list(shape)}")
    number = reader.number(_U32, f"the type of {name}")
    type_ = GGML_TYPES.get(number)
    if type_ is None:
        raise reader.error(
            f"{name} has the unknown tensor type {number}; a newer edged may read it"
        )
    if shape[0] % type_.block_weights:
        raise reader.error(
            f"{name} has rows of {shape[0]} weights, no multiple of the "
            f"{type_.block_weights} in a block of {type_.name}",
        )
    offset: int = reader.number(_U64, f"the offset of {name}")
    if offset % alignment:
        raise reader.error(f"{name} lies at offset {offset}, no multiple of {alignment}")
    return shape, type_, offset


def _size_bytes(shape: tuple[int, ...], type_: GgmlType) -> int:
    size = shape[0] // type_.block_weights * type_.block_bytes
    for length in shape[1:]:
        size *= length
    return size


def _check_extents(reader: ByteReader, tensors: tuple[TensorInfo, ...], file_bytes: int) -> None:
    """Every tensor lies within the file, and none in another."""
    for tensor in tensors:
        end = tensor.offset_bytes + tensor.size_bytes
        if end > file_bytes:
            raise reader.error(
                f"{tensor.name} ends at byte {end}, but the file has {file_bytes} bytes "
                f"({end - file_bytes} are missing); it is truncated or damaged, fetch it again",
            )
    ordered = sorted(tensors, key=lambda tensor: tensor.offset_bytes)
    for before, after in pairwise(ordered):
        if before.offset_bytes + before.size_bytes > after.offset_bytes:
            raise reader.error(f"the tensors {before.name} and {after.name} overlap")
