"""Decides whether a header's vocabulary is one that engines survive."""

from collections.abc import Iterator
from typing import Final

from edged.errors import ModelFileError
from edged.models.gguf_format import ARRAY_HEAD_BYTES, ByteReader, ValueType
from edged.models.gguf_header import ArraySummary, Header

_TOKENIZERS: Final = ("llama", "gpt2")
_BYTE_VALUES: Final = 256
# llama.cpp looks these up, without asking, in every model whose name says Phi-3.
_PHI3_NAMES: Final = ("phi-3", "phi3")
_PHI3_TOKENS: Final = (b"</s>", b"<unk>", b"<s>", b"<|endoftext|>")


def check_vocabulary(header: Header) -> int:
    """The number of tokens; ``ModelFileError`` unless the vocabulary is one."""
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind not in _TOKENIZERS:
        raise ModelFileError(
            f"{header.path}: the tokenizer is {kind or 'missing'}; known are "
            f"{', '.join(_TOKENIZERS)}",
        )
    count = _array_length(header, "tokenizer.ggml.tokens", ValueType.STRING)
    others = [("scores", ValueType.FLOAT32), ("token_type", ValueType.INT32)]
    if kind == "gpt2":
        _array_length(header, "tokenizer.ggml.merges", ValueType.STRING)
        others = others[1:]
    for name, type_ in others:
        length = _array_length(header, f"tokenizer.ggml.{name}", type_)
        if length < count:
            raise ModelFileError(
                f"{header.path}: {count} tokens, but {length} entries in tokenizer.ggml.{name}",
            )
    for name in ("bos", "eos", "unknown", "separator", "padding"):
        token = header.get_int(f"tokenizer.ggml.{name}_token_id", 0)
        if not 0 <= token < count:
            raise ModelFileError(f"{header.path}: the {name} token is {token} of {count} tokens")
    _check_tokens(header, count, byte_fallback=kind == "llama")
    return count


def _array_length(header: Header, key: str, element: ValueType) -> int:
    value = header.metadata.get(key)
    span = header.spans.get(key)
    if not isinstance(value, ArraySummary | tuple) or not span or span.element is not element:
        raise ModelFileError(f"{header.path}: {key} is missing or no array of {element.name}")
    return value.length if isinstance(value, ArraySummary) else len(value)


def _check_tokens(header: Header, count: int, *, byte_fallback: bool) -> None:
    """No text twice (llama.cpp asserts it), and a token for each byte value.

    Without byte tokens a character outside the vocabulary throws through ctypes, which
    ends the process at the first prompt that contains one.
    """
    seen = set(_tokens(header))
    if len(seen) != count:
        raise ModelFileError(
            f"{header.path}: {count - len(seen)} of {count} tokens have the text of another one",
        )
    name = str(header.metadata.get("general.name", "")).lower()
    if any(part in name for part in _PHI3_NAMES):
        for token in _PHI3_TOKENS:
            if token not in seen:
                raise ModelFileError(
                    f"{header.path}: is named {header.name!r} but has no token {token.decode()}, "
                    "which engines expect of a Phi-3 model; give it another name",
                )
    if byte_fallback:
        missing = [
            byte
            for byte in range(_BYTE_VALUES)
            if b"<0x%02X>" % byte not in seen and bytes([byte]) not in seen
        ]
        if missing:
            raise ModelFileError(
                f"{header.path}: the vocabulary has no token for {len(missing)} byte values "
                f"(the first is 0x{missing[0]:02X}); train it with byte fallback",
            )


def _tokens(header: Header) -> Iterator[bytes]:
    """The token texts as llama.cpp sees them: up to a NUL, and never empty."""
    for index, raw in enumerate(_strings(header, "tokenizer.ggml.tokens")):
        yield raw.partition(b"\0")[0] or b"[EMPTY_%d]" % index


def _strings(header: Header, key: str) -> Iterator[bytes]:
    """The array of strings under ``key``, from the file where ``read_header`` passed it over."""
    value = header.metadata[key]
    if isinstance(value, tuple):
        yield from (text for text in value if isinstance(text, bytes))
        return
    try:
        with header.path.open("rb", buffering=0) as file:
            reader = ByteReader(
                file.fileno(),
                header.path,
                file_bytes=header.file_bytes,
                position=header.spans[key].start,
            )
            reader.skip(ARRAY_HEAD_BYTES, key)
            yield from reader.strings(_array_length(header, key, ValueType.STRING), key)
    except OSError as e:
        raise ModelFileError(f"{header.path}: cannot be read: {e.strerror or e}") from e
