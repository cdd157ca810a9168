"""Rewrites a phi3 model in the llama layout, for ctransformers, without touching a block.

The two architectures compute the same; they differ in how weights are laid out (seen in
llama.cpp's src/models/phi3.cpp and llama.cpp, and measured: see the tests):

- ``attn_qkv`` holds the rows of Q, K and V one above the other; llama has three tensors;
- ``ffn_up`` holds the gate's rows above its own; llama has two tensors;
- rotary embedding pairs row i of a head with row i + d/2; llama pairs 2i with 2i + 1, so
  the rows of Q and K are interleaved within each head.

Rows are whole quantised blocks, so all of it is copying rows.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from edged.errors import EngineUnavailable, ModelFileError
from edged.models.gguf import Header, TensorInfo, check_model, read_header
from edged.models.gguf_writer import PARTIAL, appearing, padded, preamble, string, tensor_entry

CONVERTER_VERSION: Final = 1  # raised when the written file changes, so that caches are renewed

_CHUNK_BYTES: Final = 4 << 20
_INSTEAD: Final = "serve it with the engine llama_cpp (install edged[llama-cpp])"
# What ggml knew when ctransformers 0.2.27 was built.
_KNOWN_TYPES: Final = frozenset(
    {
        *("F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    },
)
# llama.cpp leaves Phi-3's sliding window off, and a scaling other than none is refused.
_DROPPED_KEYS: Final = ("phi3.attention.sliding_window", "phi3.rope.scaling.", "llama.")


@dataclass(frozen=True)
class _Rows:
    """A tensor to write: some rows of one of the source's, perhaps interleaved by heads."""

    name: str
    source: TensorInfo
    first_row: int
    rows: int
    head_rows: int = 0
    """Rows of one head where they are to be interleaved, else 0."""

    @property
    def shape(self) -> tuple[int, ...]:
        row, *others = self.source.shape
        return (row, self.rows) if others else (row,)

    @property
    def offset_bytes(self) -> int:
        return self.source.offset_bytes + self.first_row * self.source.row_bytes

    @property
    def size_bytes(self) -> int:
        return self.rows * self.source.row_bytes


def convert_phi3_to_llama(source: Path, target: Path) -> None:
    """Writes the phi3 model ``source`` to ``target`` in the llama layout.

    Takes little memory whatever the model's size, and ``target`` appears whole or not at
    all. Raises ``ModelFileError`` for a broken source, and ``EngineUnavailable`` for a
    model that the llama layout cannot express or a disk that cannot hold it.
    """
    header = read_header(source)
    check_model(header)
    _check_convertible(header)
    plan = list(_plan(header))
    head = _head(header, plan)
    needed = head.size_bytes + sum(padded(rows.size_bytes, header.alignment) for rows in plan)
    try:
        _check_space(target.parent, needed)
        with appearing(target) as partial:
            with partial.open("wb") as out, source.open("rb", buffering=0) as file:
                _write(_Source(file.fileno(), header), head, plan, out)
            check_model(read_header(partial))
    except OSError as e:
        raise EngineUnavailable(f"{target}: cannot be written: {e.strerror or e}") from e


def converted_path(source: Path, state_dir: Path) -> Path:
    """Where the conversion of ``source``, as it is now, is kept."""
    try:
        found = source.stat()
    except OSError as e:
        raise ModelFileError(f"{source}: cannot be read: {e.strerror or e}") from e
    identity = f"{CONVERTER_VERSION} {source.name} {found.st_size} {found.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]
    return state_dir / "converted" / f"{source.stem[:100]}-{digest}.gguf"


def ensure_converted(source: Path, state_dir: Path) -> Path:
    """The conversion of ``source``, made unless it is there already.

    Waits where another process is making it. Raises what ``convert_phi3_to_llama`` does.
    """
    target = converted_path(source, state_dir)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / ".lock"):
            for partial in target.parent.glob(f".*{PARTIAL}"):  # of a process that died
                partial.unlink()
            if not _is_whole(target):
                convert_phi3_to_llama(source, target)
    except OSError as e:
        raise EngineUnavailable(
            f"{target.parent}: the converted model cannot be kept there: {e.strerror or e}",
        ) from e
    return target


def _is_whole(target: Path) -> bool:
    if not target.exists():
        return False
    try:
        check_model(read_header(target))
    except ModelFileError:
        return False
    return True


def _check_convertible(header: Header) -> None:
    def refuse(reason: str) -> EngineUnavailable:
        return EngineUnavailable(f"{header.path}: {reason}; {_INSTEAD}")

    if header.architecture != "phi3":
        raise refuse(f"is a {header.architecture} model, and only phi3 is rewritten for llama")
    if (kind := header.get_str("tokenizer.ggml.model")) != "llama":
        raise refuse(
            f"its vocabulary is of the kind {kind!r}, and ctransformers wants SentencePiece"
        )
    scaling = header.get_str("phi3.rope.scaling.type", "none")
    if any(tensor.name.startswith("rope_") for tensor in header.tensors):
        scaling = "longrope"
    if scaling != "none":
        raise refuse(f"its rope scaling ({scaling}) has no counterpart in ctransformers")
    head = _head_size(header)
    rotated = header.get_int("phi3.rope.dimension_count", head)
    if rotated != head:
        raise refuse(
            f"only {rotated} of {head} weights a head are rotated, ctransformers rotates all"
        )
    for tensor in header.tensors:
        if tensor.name.endswith(".bias"):
            raise refuse(f"the tensor {tensor.name} has no counterpart in ctransformers")
        if tensor.type.name not in _KNOWN_TYPES:
            raise refuse(f"{tensor.name} is {tensor.type.name}, which ctransformers cannot read")


def _head_size(header: Header) -> int:
    return header.get_int("phi3.embedding_length") // header.get_int("phi3.attention.head_count")


def _plan(header: Header) -> Iterator[_Rows]:
    head = _head_size(header)
    heads = header.get_int("phi3.attention.head_count")
    keys = head * header.get_int("phi3.attention.head_count_kv", heads)
    queries = head * heads
    inner = header.get_int("phi3.feed_forward_length")
    for tensor in header.tensors:
        prefix, _, part = tensor.name.removesuffix(".weight").rpartition(".")
        if part == "attn_qkv":
            yield _Rows(f"{prefix}.attn_q.weight", tensor, 0, queries, head)
            yield _Rows(f"{prefix}.attn_k.weight", tensor, queries, keys, head)
            yield _Rows(f"{prefix}.attn_v.weight", tensor, queries + keys, keys)
        elif part == "ffn_up":
            yield _Rows(f"{prefix}.ffn_gate.weight", tensor, 0, inner)
            yield _Rows(f"{prefix}.ffn_up.weight", tensor, inner, inner)
        else:
            yield _Rows(tensor.name, tensor, 0, tensor.size_bytes // tensor.row_bytes)
    if "output.weight" not in header.tensors_by_name:  # tied, which ctransformers does not know
        tied = header.tensors_by_name["token_embd.weight"]
        yield _Rows("output.weight", tied, 0, tied.shape[1])


@dataclass(frozen=True)
class _Head:
    """Everything before the weights: bytes, and spans of the source that are copied as they are."""

    parts: tuple[bytes | tuple[int, int], ...]
    size_bytes: int


def _head(header: Header, plan: list[_Rows]) -> _Head:
    kept = {
        key: "llama." + key.removeprefix("phi3.") if key.startswith("phi3.") else key
        for key in header.spans
        if not key.startswith(_DROPPED_KEYS)
    }
    parts: list[bytes | tuple[int, int]] = [
        preamble(len(plan), len(kept), header.version),
    ]
    for key, renamed in kept.items():
        parts.append(string(renamed))
        span = header.spans[key]
        if key == "general.architecture":
            parts.append(struct.pack("<I", span.type) + string("llama"))
        else:
            parts.append((span.start, span.end))
    offset = 0
    for rows in plan:
        parts.append(tensor_entry(rows.name, rows.shape, rows.source.type, offset))
        offset += padded(rows.size_bytes, header.alignment)
    size = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts)
    padding = padded(size, header.alignment) - size
    return _Head((*parts, bytes(padding)), size + padding)


@dataclass(frozen=True)
class _Source:
    """The model that is read."""

    descriptor: int
    header: Header

    def chunks(self, offset: int, size: int, chunk: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """``size`` bytes from ``offset``, in pieces of ``chunk`` bytes."""
        end = offset + size
        while offset < end:
            wanted = min(chunk, end - offset)
            try:
                read = os.pread(self.descriptor, wanted, offset)
            except OSError as e:
                raise ModelFileError(f"{self.header.path}: cannot be read: {e.strerror}") from e
            if len(read) < wanted:
                raise ModelFileError(f"{self.header.path}: shrank while it was converted")
            yield read
            offset += wanted


def _write(source: _Source, front: _Head, plan: list[_Rows], out: BinaryIO) -> None:
    for part in front.parts:
        if isinstance(part, bytes):
            out.write(part)
        else:
            out.writelines(source.chunks(part[0], part[1] - part[0]))
    for rows in plan:
        if rows.head_rows:
            head_bytes = rows.head_rows * rows.source.row_bytes
            heads = source.chunks(rows.offset_bytes, rows.size_bytes, head_bytes)
            out.writelines(_interleave(head, rows.source.row_bytes) for head in heads)
        else:
            out.writelines(source.chunks(rows.offset_bytes, rows.size_bytes))
        out.write(bytes(padded(rows.size_bytes, source.header.alignment) - rows.size_bytes))


def _interleave(head: bytes, row_bytes: int) -> bytes:
    """Rows 0, d/2, 1, d/2 + 1, … of one head of d rows."""
    half = len(head) // 2
    view = memoryview(head)
    return b"".join(
        view[start : start + row_bytes]
        for low in range(0, half, row_bytes)
        for start in (low, half + low)
    )


def _check_space(folder: Path, needed: int) -> None:
    available = shutil.disk_usage(folder).free
    if available < needed:
        raise EngineUnavailable(
            f"{folder}: the converted model needs {needed} bytes, but {available} are available; "
            f"make room, choose another state_dir, or {_INSTEAD}",
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
