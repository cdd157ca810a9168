"""Measures a GGUF with llama.cpp itself, beside a look-up in the training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp

from tools.tiny_model.dataset import conversations
from tools.tiny_model.look_up import NearestPrompt
from tools.tiny_model.score import MAX_TOKENS, score
from tools.tiny_model.vocabulary import Vocabulary


class Gguf:
    """Greedy answers of a GGUF through llama.cpp."""

    def __init__(self, path: Path, vocabulary: Path, threads: int) -> None:
        self.vocabulary = Vocabulary(vocabulary)
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.tokeniser_differs: list[str] = []

    def __call__(self, prompt: str) -> str:
        """The answer; notes a prompt that llama.cpp tokenises other than the training did."""
        chat = f"<|user|>\n{prompt}<|end|>\n<|assistant|>\n"
        ids = self.llama.tokenize(chat.encode(), add_bos=True, special=True)
        if ids != self.vocabulary.prompt("", (), prompt):
            self.tokeniser_differs.append(prompt)
        ends = {self.vocabulary.special[name] for name in ("<|end|>", "<|endoftext|>")}
        answer: list[int] = []
        self.llama.reset()
        for token in self.llama.generate(ids, temp=0.0, repeat_penalty=1.0):
            if token in ends or len(answer) == MAX_TOKENS:
                break
            answer.append(token)
        text: bytes = self.llama.detokenize(answer)
        return text.decode(errors="replace").strip()


def evaluate(gguf: Path, vocabulary: Path, samples: int, threads: int) -> dict[str, Any]:
    """Both accuracies of the GGUF and of the look-up, and whether the tokenisers agree."""
    model = Gguf(gguf, vocabulary, threads)
    scores = score(model, "model")
    look_up = score(NearestPrompt(conversations(samples)), "look-up")
    return {
        "model": {name: part.share for name, part in scores.items()},
        "nearest training prompt": {name: part.share for name, part in look_up.items()},
        "prompts tokenised differently": len(model.tokeniser_differs),
        "wrong": [*scores["commands"].wrong, *scores["off-topic"].wrong],
    }
