"""SentencePiece-BPE tokenising in pure Python, with exactly llama.cpp's ids.

For engines whose own tokenizer cannot be trusted (ctransformers splits special tokens and
crashes on some scripts). The rules are those of llama.cpp (src/llama-vocab.cpp of the
release that llama-cpp-python 0.3.36 bundles), for the families that edged serves:

- characters merge pairwise, the highest score first and the leftmost among equals, as
  long as the merged text is a token; what is no token in the end becomes byte tokens;
- special tokens are cut out beforehand, the longest first: control tokens only on demand,
  user-defined ones always; a token whose text is known to end a generation counts as a
  control token whatever its type says (so ``</s>`` of Phi-3 does);
- a space goes before the text at the beginning and after each special token;
- in models whose name says Phi-3, white space after most special tokens is swallowed.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from enum import IntFlag
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import Final, TypeVar

from edged.errors import EngineUnavailable, ModelFileError
from edged.models.gguf import Header, read_header
from edged.models.gguf_vocabulary import check_vocabulary

_TOKENS: Final = "tokenizer.ggml.tokens"
_SCORES: Final = "tokenizer.ggml.scores"
_TYPES: Final = "tokenizer.ggml.token_type"
_ARRAYS: Final = (_TOKENS, _SCORES, _TYPES)

_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's mark for a space
_WHITE: Final = " \t\n\v\f\r"  # isspace() of C

# Texts that end a generation in llama.cpp, whatever the file says.
_ENDS: Final = frozenset(
    {
        *("</s>", "<eos>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"),
        *("<|eot_id|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_turn>"),
        *("<end_of_utterance>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>"),
    },
)
# Fill-in-the-middle tokens are found by text where no key names them, and become control
# tokens; the first three groups mark text, the others end a generation.
_FILL_MARKS: Final = {
    "fim_pre": ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", f"{_SPACE}<PRE>"),
    "fim_suf": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", f"{_SPACE}<SUF>"),
    "fim_mid": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", f"{_SPACE}<MID>"),
}
_FILL_ENDS: Final = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
_PHI3_NAMES: Final = ("phi-3", "phi3")
_PHI3_KEEPS_WHITE: Final = frozenset({"<unk>", "<s>", "<|endoftext|>"})


_T = TypeVar("_T", bytes, float, int)


class _Kind(IntFlag):
    """What a token is; a control token by its text keeps what its type made it."""

    NONE = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 4
    USER_DEFINED = 8
    UNUSED = 16
    BYTE = 32


_KINDS: Final = {
    1: _Kind.NORMAL,
    2: _Kind.UNKNOWN,
    3: _Kind.CONTROL,
    4: _Kind.USER_DEFINED,
    5: _Kind.UNUSED,
    6: _Kind.BYTE,
}
_HIDDEN: Final = _Kind.CONTROL | _Kind.UNKNOWN
_SPECIAL: Final = _HIDDEN | _Kind.USER_DEFINED


class SpmTokenizer:
    """A SentencePiece vocabulary of a GGUF file.

    ``bos_id`` begins a prompt if ``adds_bos`` says so (``encode`` never adds it);
    ``eos_ids`` end a generation, and ``eos_id`` is the one that the file names;
    ``special_ids`` maps the text of control, user-defined and unknown tokens to their ids.
    """

    def __init__(self, header: Header) -> None:
        kind = header.get_str("tokenizer.ggml.model", "none")
        if kind != "llama":
            raise EngineUnavailable(
                f"{header.path}: its vocabulary is of the kind {kind!r}, not SentencePiece; "
                "only the engine llama_cpp can serve it (install edged[llama-cpp])",
            )
        self.vocab_size: Final = check_vocabulary(header)
        self._raw: Final = [
            text.partition(b"\0")[0] or b"[EMPTY_%d]" % index
            for index, text in enumerate(_column(header, _TOKENS, bytes))
        ]
        scores = _column(header, _SCORES, float)
        if any(map(math.isnan, scores)):
            raise ModelFileError(f"{header.path}: a token's score is not a number")
        # Texts that are not UTF-8 can never match a text that is.
        self._ids: Final = dict(_decodable(self._raw))
        self._ranks: Final = {text: -scores[id_] for text, id_ in self._ids.items()}
        types = _column(header, _TYPES, int)[: self.vocab_size]
        self._kinds: Final = [_KINDS.get(type_, _Kind.NONE) for type_ in types]
        self._byte_values: Final = dict(self._find_byte_values(header))
        self._byte_ids: Final = self._find_byte_ids()
        self.bos_id: Final = self._named(header, "bos", 1)
        self.eos_id: Final = self._named(header, "eos", 2)
        self.adds_bos: Final = header.get_bool("tokenizer.ggml.add_bos_token", default=True)
        self.adds_space_prefix: Final = header.get_bool(
            "tokenizer.ggml.add_space_prefix", default=True
        )
        self.eos_ids: Final = frozenset(self._mark_ends(header))
        special = [(text, id_) for text, id_ in self._ids.items() if self._kinds[id_] & _SPECIAL]
        special.sort(key=lambda entry: -len(entry[0].encode()))
        self.special_ids: Final[Mapping[str, int]] = MappingProxyType(dict(special))
        name = str(header.metadata.get("general.name", "")).lower()
        self._swallowing: Final = frozenset(
            id_
            for text, id_ in special
            if text not in _PHI3_KEEPS_WHITE and any(part in name for part in _PHI3_NAMES)
        )

    @classmethod
    def from_header(cls, source: Header | str | os.PathLike[str]) -> "SpmTokenizer":
        """The tokenizer of that file, or of the file that the header was read from.

        Raises ``EngineUnavailable`` for a vocabulary of another kind and
        ``ModelFileError`` for a broken one.
        """
        if not isinstance(source, Header):
            return cls(read_header(source, arrays=_ARRAYS))
        if any(not isinstance(source.metadata.get(key, ()), tuple) for key in _ARRAYS):
            return cls(read_header(source.path, arrays=_ARRAYS))
        return cls(source)

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """The ids of ``text``, without a BOS.

        With ``parse_special``, the text of a control token becomes that token; never use
        it on what a requester wrote. Halves of surrogate pairs count as U+FFFD.
        """
        ids: list[int] = []
        after_special = True
        for fragment in self._cut(_whole_characters(text), parse_special=parse_special):
            if isinstance(fragment, int):
                ids.append(fragment)
                after_special = True
            else:
                marked = fragment.replace(" ", _SPACE)
                prefix = _SPACE if self.adds_space_prefix and after_special else ""
                self._merge(prefix + marked, ids)
                after_special = False
        return ids

    def token_bytes(self, token: int) -> bytes:
        """What ``token`` adds to an answer; nothing for control, unknown and unused ones.

        May be a part of a character. Raises ``IndexError`` outside the vocabulary.
        """
        raw, kind = self._text(token), self._kinds[token]
        if kind & _HIDDEN:
            return b""
        if kind & _Kind.USER_DEFINED:
            return raw
        if kind & _Kind.NORMAL:
            return raw.replace(_SPACE.encode(), b" ")
        if kind & _Kind.BYTE:
            return self._byte_values[token]
        return b""

    def token_text(self, token: int) -> str:
        """How the vocabulary writes ``token``, as chat templates name it (``<|end|>``).

        Raises ``IndexError`` outside the vocabulary.
        """
        return self._text(token).decode(errors="replace")

    def _text(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise IndexError(f"token {token} of a vocabulary of {self.vocab_size}")
        return self._raw[token]

    def _cut(self, text: str, *, parse_special: bool) -> Iterator[str | int]:
        """Texts between special tokens, and those tokens' ids, in order."""
        fragments: list[str | int] = [text] if text else []
        for special, id_ in self.special_ids.items():
            if special not in text or (not parse_special and self._kinds[id_] & _HIDDEN):
                continue
            fragments = [
                part
                for fragment in fragments
                for part in (
                    [fragment]
                    if isinstance(fragment, int)
                    else self._cut_one(fragment, special, id_)
                )
            ]
        return iter(fragments)

    def _cut_one(self, text: str, special: str, id_: int) -> Iterator[str | int]:
        start = 0
        while (found := text.find(special, start)) >= 0:
            if found > start:
                yield text[start:found]
            yield id_
            start = found + len(special)
            if id_ in self._swallowing:
                while start < len(text) and text[start] in _WHITE:
                    start += 1
        if start < len(text):
            yield text[start:]

    def _merge(self, text: str, ids: list[int]) -> None:
        """Appends the ids of ``text``, which is free of special tokens.

        A symbol is named by where it begins, so the one after it is named by where it
        ends. A pair stays in the heap when one of its symbols is merged otherwise, and is
        passed over when its turn comes.
        """
        size = len(text)
        ends = list(range(1, size + 1))
        befores = list(range(-1, size - 1))
        ranks = self._ranks
        pairs = [
            (ranks[pair], start, start + 1, start + 2)
            for start in range(size - 1)
            if (pair := text[start : start + 2]) in ranks
        ]
        heapify(pairs)
        while pairs:
            _, left, right, end = heappop(pairs)
            if ends[left] != right or ends[right] != end:
                continue
            ends[left], ends[right] = end, 0
            before = befores[left]
            if before >= 0 and (rank := ranks.get(text[before:end])) is not None:
                heappush(pairs, (rank, before, left, end))
            if end < size:
                befores[end] = left
                after = ends[end]
                if (rank := ranks.get(text[left:after])) is not None:
                    heappush(pairs, (rank, left, end, after))
        start = 0
        while start < size:
            symbol = text[start : ends[start]]
            id_ = self._ids.get(symbol)
            if id_ is None:
                ids.extend(self._byte_ids[byte] for byte in symbol.encode())
            else:
                ids.append(id_)
            start = ends[start]

    def _find_byte_values(self, header: Header) -> Iterator[tuple[int, bytes]]:
        for id_, kind in enumerate(self._kinds):
            if kind & _Kind.BYTE:
                try:
                    yield id_, bytes.fromhex(self._raw[id_][3:5].decode())
                except ValueError as e:
                    raise ModelFileError(
                        f"{header.path}: the byte token {id_} is {self._raw[id_][:20]!r}",
                    ) from e

    def _find_byte_ids(self) -> list[int]:
        by_raw = {raw: id_ for id_, raw in enumerate(self._raw)}
        return [
            by_raw[name if (name := b"<0x%02X>" % byte) in by_raw else bytes([byte])]
            for byte in range(256)
        ]

    def _mark_ends(self, header: Header) -> set[int]:
        """The ids that end a generation; those known by text become control tokens."""
        ends = {self._ids[text] for text in _ENDS & self._ids.keys()}
        by_text = set(ends)
        for name, texts in (_FILL_MARKS | _FILL_ENDS).items():
            id_ = self._named(header, name, -1)
            if id_ < 0:
                id_ = next((self._ids[text] for text in texts if text in self._ids), -1)
                by_text.add(id_)
            if name in _FILL_ENDS:
                ends.add(id_)
        for id_ in by_text - {-1}:
            self._kinds[id_] |= _Kind.CONTROL
        ends.add(self.eos_id)
        ends.add(self._named(header, "eot", -1))
        ends.add(self._named(header, "eom", -1))
        return ends - {-1}

    def _named(self, header: Header, name: str, default: int) -> int:
        """The id that a key gives, where it is in the vocabulary; else the default."""
        id_ = header.get_int(f"tokenizer.ggml.{name}_token_id", default)
        return id_ if 0 <= id_ < self.vocab_size else default


def _column(header: Header, key: str, type_: type[_T]) -> list[_T]:
    value = header.metadata[key]
    assert isinstance(value, tuple)  # from_header reads these arrays
    return [entry for entry in value if isinstance(entry, type_)]


def _decodable(raw: list[bytes]) -> Iterator[tuple[str, int]]:
    for id_, text in enumerate(raw):
        with contextlib.suppress(UnicodeDecodeError):
            yield text.decode(), id_


def _whole_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
