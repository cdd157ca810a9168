"""Made-up vocabularies of a real one's size, kind and special tokens.

An engine's memory and speed depend on how many tokens and merges there are, not on what
they say; the special tokens are real, so that the chat format can be used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, product
from string import ascii_lowercase
from typing import Final

from edged.models.catalogue import Entry
from edged.models.gguf_format import ValueType
from edged.models.gguf_writer import numbers_key, scalar_key, string_key, strings_key

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

_ROLES: Final = "{% for message in messages %}"
_END: Final = "{% endfor %}{% if add_generation_prompt %}"


@dataclass(frozen=True)
class _Format:
    """A chat format: special tokens by id, and the template that uses them."""

    specials: dict[int, str]
    bos: int
    eos: int
    add_bos: bool
    template: str


# Ids and roles: the added_tokens of the tokenizers in the catalogue's `source` repositories;
# for phi-3 also the public vocabulary in llama.cpp's models/.
_FORMATS: Final = {
    "phi-3": _Format(
        specials={
            32000: "<|endoftext|>",
            32001: "<|assistant|>",
            32006: "<|system|>",
            32007: "<|end|>",
            32010: "<|user|>",
        },
        bos=1,
        eos=32000,
        add_bos=True,
        template=_ROLES + "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
        f"{_END}{{{{ '<|assistant|>\n' }}}}{{% endif %}}",
    ),
    "phi-4-mini": _Format(
        specials={
            199999: "<|endoftext|>",
            200018: "<|endofprompt|>",
            200019: "<|assistant|>",
            200020: "<|end|>",
            200021: "<|user|>",
            200022: "<|system|>",
        },
        bos=199999,
        eos=199999,
        add_bos=False,
        template=_ROLES + "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        f"{_END}{{{{ '<|assistant|>' }}}}{{% endif %}}",
    ),
    "phi-4": _Format(
        specials={
            100257: "<|endoftext|>",
            100264: "<|im_start|>",
            100265: "<|im_end|>",
            100266: "<|im_sep|>",
        },
        bos=100257,
        eos=100265,
        add_bos=False,
        template=_ROLES + "{{ '<|im_start|>' + message['role'] + '<|im_sep|>' "
        "+ message['content'] + '<|im_end|>' }}"
        f"{_END}{{{{ '<|im_start|>assistant<|im_sep|>' }}}}{{% endif %}}",
    ),
}


def vocabulary_keys(entry: Entry) -> list[bytes]:
    """The ``tokenizer.*`` keys of a file of that entry."""
    chat = _FORMATS[entry.template]
    tokens = _sentencepiece() if entry.tokenizer == "llama" else _byte_level(entry.merges)
    texts: list[str] = []
    types: list[int] = []
    for index in range(entry.vocabulary):
        text, type_ = next(tokens, (f"[PAD{index}]", _UNUSED))
        if index in chat.specials:
            text, type_ = chat.specials[index], _CONTROL
        texts.append(text)
        types.append(type_)
    number = partial(scalar_key, type_=ValueType.UINT32)
    keys = [
        string_key("tokenizer.ggml.model", entry.tokenizer),
        string_key("tokenizer.ggml.pre", entry.pre),
        strings_key("tokenizer.ggml.tokens", texts),
        numbers_key("tokenizer.ggml.token_type", ValueType.INT32, types),
        number("tokenizer.ggml.bos_token_id", value=chat.bos),
        number("tokenizer.ggml.eos_token_id", value=chat.eos),
        number("tokenizer.ggml.padding_token_id", value=chat.eos),
        scalar_key("tokenizer.ggml.add_bos_token", ValueType.BOOL, chat.add_bos),
        string_key("tokenizer.chat_template", chat.template),
    ]
    if entry.tokenizer == "llama":
        scores = [-float(index) for index in range(entry.vocabulary)]
        keys.append(numbers_key("tokenizer.ggml.scores", ValueType.FLOAT32, scores))
        keys.append(number("tokenizer.ggml.unknown_token_id", value=0))
    else:
        merges = [f"{left} {right}" for left, right in _merges(entry.merges)]
        keys.append(strings_key("tokenizer.ggml.merges", merges))
    return keys


def _sentencepiece() -> Iterator[tuple[str, int]]:
    """Phi-3's first 259 tokens, then words until its specials begin."""
    yield "<unk>", _UNKNOWN
    yield "<s>", _CONTROL
    yield "</s>", _USER_DEFINED
    for byte in range(256):
        yield f"<0x{byte:02X}>", _BYTE
    words = product(*[ascii_lowercase] * 3, ("", "▁"))
    for *letters, space in islice(words, 32000 - 259):
        yield space + "".join(letters), _NORMAL


def _byte_level(merges: int) -> Iterator[tuple[str, int]]:
    """A token for each byte, then what each merge gives."""
    for letter in _byte_letters():
        yield letter, _NORMAL
    for left, right in _merges(merges):
        yield left + right, _NORMAL


def _byte_letters() -> Iterator[str]:
    """The printable letters that stand for the 256 bytes in byte-level vocabularies (GPT-2)."""
    unprintable = count(0x100)
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    for byte in range(256):
        yield chr(byte if byte in printable else next(unprintable))


def _merges(wanted: int) -> Iterator[tuple[str, str]]:
    """Pairs of which each half is a letter or what an earlier pair gave, none twice.

    Letters to words of two, of four and, from both, of six: 676 + 676 + 676 x 676 of them.
    """
    letters = ascii_lowercase
    pairs = [(left, right) for left in letters for right in letters]
    twos = [left + right for left, right in pairs]
    fours = [(two, twos[(31 * index + 7) % len(twos)]) for index, two in enumerate(twos)]
    sixes = ((two, left + right) for two in twos for left, right in fours)
    return islice(chain(pairs, fours, sixes), wanted)
