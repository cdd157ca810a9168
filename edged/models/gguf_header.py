"""What ``edged.models.gguf.read_header`` answers: a GGUF file's metadata and tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edged.errors import ModelFileError
from edged.models.gguf_format import FILE_TYPES, GgmlType, ValueType

_FILE_TYPE_GUESSED: Final = 1024  # a flag beside the type (llama.h)


@dataclass(frozen=True)
class ArraySummary:
    """Stands in the metadata for an array that was passed over."""

    type: ValueType
    length: int


@dataclass(frozen=True)
class Span:
    """Where a key's value stands in the file, in bytes; begins with the type's number."""

    type: ValueType
    element: ValueType | None
    """The type of an array's elements."""
    start: int
    end: int


# Strings of arrays stay bytes: a vocabulary may hold pieces that are not UTF-8.
Value = int | float | bool | str | ArraySummary | tuple[int | float | bool | bytes, ...]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. ``shape`` counts weights, the fastest dimension (a row's length) first."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset_bytes: int
    """From the beginning of the file."""
    size_bytes: int

    @property
    def row_bytes(self) -> int:
        return self.shape[0] // self.type.block_weights * self.type.block_bytes


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself; all offsets and sizes in bytes."""

    path: Path
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset_bytes: int
    alignment: int
    file_bytes: int
    spans: Mapping[str, Span] = field(repr=False)

    @cached_property
    def tensors_by_name(self) -> Mapping[str, TensorInfo]:
        return MappingProxyType({tensor.name: tensor for tensor in self.tensors})

    @property
    def architecture(self) -> str:
        return self.get_str("general.architecture")

    @property
    def name(self) -> str:
        """``general.name``, or the file's own where it has none."""
        name = self.metadata.get("general.name")
        return name if isinstance(name, str) and name else self.path.stem

    @property
    def context_length(self) -> int:
        """Tokens that the model was trained for."""
        return self.get_int(f"{self.architecture}.context_length")

    @property
    def weights_bytes(self) -> int:
        """What the tensors fill; the parts of a quantised file differ, so they are summed."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def quantisation(self) -> str:
        """As people call it ("Q4_K_M"): the declared one, else what most bytes are in."""
        declared = self.metadata.get("general.file_type")
        if isinstance(declared, int) and declared & ~_FILE_TYPE_GUESSED in FILE_TYPES:
            return FILE_TYPES[declared & ~_FILE_TYPE_GUESSED]
        by_type: dict[str, int] = {}
        for tensor in self.tensors:
            by_type[tensor.type.name] = by_type.get(tensor.type.name, 0) + tensor.size_bytes
        return max(by_type, key=lambda name: by_type[name], default="unknown")

    def get_int(self, key: str, default: int | None = None) -> int:
        """The integer under ``key``; ``ModelFileError`` where it is absent or something else."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "an integer", value)
        return value

    def get_float(self, key: str, default: float | None = None) -> float:
        """The number under ``key``; ``ModelFileError`` where it is absent or something else."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number", value)
        return float(value)

    def get_bool(self, key: str, default: bool | None = None) -> bool:
        """The truth value under ``key``; ``ModelFileError`` where absent or something else."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def get_str(self, key: str, default: str | None = None) -> str:
        """The text under ``key``; ``ModelFileError`` where it is absent or something else."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a text", value)
        return value

    def _get(self, key: str, default: Value | None) -> Value:
        value = self.metadata.get(key, default)
        if value is None:
            raise ModelFileError(f"{self.path}: the key {key} is missing from the header")
        return value

    def _wrong(self, key: str, wanted: str, value: Value) -> ModelFileError:
        return ModelFileError(f"{self.path}: {key} should be {wanted}, but is {str(value)[:60]!r}")
