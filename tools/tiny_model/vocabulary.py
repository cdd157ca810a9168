"""The model's own SentencePiece vocabulary, and a chat as token ids."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece as spm

# Phi-3's special tokens beyond <unk>, <s> and </s>, in the order in which it numbers them.
SPECIAL = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
BOS = 1


def train_vocabulary(texts: Iterable[str], path: Path, size: int) -> None:
    """Write a BPE model of `size` pieces less the special tokens, which come after them."""
    trained = io.BytesIO()
    lines = sorted({text.replace("\n", " ") for text in texts})
    # Each number up to 100 is to be one piece: copying one token is easier than copying digits.
    lines += [str(number) for number in range(101)] * 500
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        model_type="bpe",
        vocab_size=size - len(SPECIAL),
        byte_fallback=True,
        # The rarest letters, those of other scripts, are left to the bytes.
        character_coverage=0.9995,
        # llama.cpp normalises nothing.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=False,
        add_dummy_prefix=True,
        unk_id=0,
        bos_id=BOS,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(trained.getvalue())


@dataclass(frozen=True)
class Encoded:
    """A conversation as ids; `answer[i]` says whether id i is the model's to produce."""

    ids: list[int]
    answer: list[bool]


class Vocabulary:
    """Text to ids as llama.cpp does it, with the special tokens behind SentencePiece's own."""

    def __init__(self, path: Path) -> None:
        self.pieces = spm.SentencePieceProcessor(model_file=str(path))
        self.special = {name: len(self.pieces) + i for i, name in enumerate(SPECIAL)}

    def __len__(self) -> int:
        return len(self.pieces) + len(SPECIAL)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, with the space in front that SentencePiece adds."""
        ids: list[int] = self.pieces.encode(text.lstrip())
        return ids

    def prompt(self, system: str, turns: Sequence[Sequence[str]], last: str) -> list[int]:
        """Ids up to and including the `<|assistant|>` that asks for an answer to `last`."""
        past = self.chat(system, turns).ids
        return [*past, *self._message("<|user|>", last), self.special["<|assistant|>"]]

    def chat(self, system: str, turns: Sequence[Sequence[str]]) -> Encoded:
        """Ids of a whole conversation.

        There is no line break after the special tokens: llama.cpp swallows the one that stands in
        Phi-3's template.
        """
        ids, answer = [BOS], [False]
        if system:
            ids += self._message("<|system|>", system)
            answer += [False] * (len(ids) - len(answer))
        for user, assistant in turns:
            ids += self._message("<|user|>", user)
            ids.append(self.special["<|assistant|>"])
            answer += [False] * (len(ids) - len(answer))
            ids += [*self.encode(assistant), self.special["<|end|>"]]
            answer += [True] * (len(ids) - len(answer))
        return Encoded(ids, answer)

    def _message(self, role: str, text: str) -> list[int]:
        return [self.special[role], *self.encode(text), self.special["<|end|>"]]
