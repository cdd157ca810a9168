"""The undisturbed greedy answers: one prompt after another, alone, without drafts or prefixes."""

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.chaos.prompts import MAX_TOKENS
from edged.engine.frames import Finished, Load, Piece, Submit, Up
from edged.engine.protocol import Engine, Logits, Picker
from edged.engine.registry import open_engine
from edged.engine.step_loop import StepLoop
from edged.engine.supply import Supply
from edged.engine.worker import first_answer
from edged.messages import ChatMessage, Sampling
from edged.models.bundled import BUNDLED_MODEL
from edged.settings import EngineSettings, ModelSettings, Settings

TIE = 0.2
"""Two logits closer than this may change places: results depend on the shape of the batch."""


@dataclass(frozen=True)
class Reference:
    """One answer: its text, and how sure the model was of each token.

    ``ends`` has for each piece how many characters and how many tokens there were then. ``gaps``
    has for each token, the one that ends the answer too, how far its logit was ahead of the second.
    """

    text: str
    ends: list[tuple[int, int]]
    gaps: list[float]

    def gap_at_parting(self, text: str) -> float:
        """How sure the model was where another text parts from this one.

        Of all tokens of the word: one may be spelled with others than the other text was.
        """
        pairs = enumerate(zip(self.text, text, strict=False))
        shorter = min(len(self.text), len(text))
        common = next((at for at, (ours, theirs) in pairs if ours != theirs), shorter)
        word = self.text.rfind(" ", 0, common)
        gaps, tokens_before = [], 0
        for characters, tokens in self.ends:
            if characters > word:
                gaps += self.gaps[tokens_before:tokens]
            if characters > common:
                return min(gaps)
            tokens_before = tokens
        return min(gaps + self.gaps[tokens_before:], default=0.0)


class _Watched:
    """An engine that notes how far the best logit was ahead of the second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gaps: list[float] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        """See ``Engine``."""
        gaps = self.gaps

        class Noting:
            def pick(self, logits: Logits) -> int:
                second, first = np.partition(logits, -2)[-2:]
                gaps.append(round(float(first - second), 3))
                return picker.pick(logits)

        return self._engine.sample(sequence, Noting(), row)


def references(
    texts: Sequence[str], folder: Path, ctx: int, on_one: Callable[[], None] = lambda: None
) -> list[Reference]:
    """The answers to these prompts; those of an earlier run are taken from ``folder``."""
    file = folder / f"chaos-reference-{_digest(texts, ctx)}.json"
    if file.exists():
        return [
            Reference(each["text"], [(c, t) for c, t in each["ends"]], each["gaps"])
            for each in json.loads(file.read_text("utf-8"))
        ]
    engine = open_engine(_load(ctx))
    costs = first_answer(engine)
    watched = _Watched(engine)
    found = []
    for text in texts:
        watched.gaps = []
        said: list[Up] = []
        loop = StepLoop(watched, said.append, costs=costs, speculates=False)  # type: ignore[arg-type]
        loop.submit(Submit(1, (ChatMessage("user", text),), _GREEDY))
        while not loop.idle:
            loop.step()
        loop.forget_prefixes()
        found.append(_reference(said, watched.gaps))
        on_one()
    engine.close()
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps([asdict(each) for each in found]), "utf-8")
    part.replace(file)
    return found


_GREEDY = Sampling(MAX_TOKENS, 0.0, 0, 1.0, 0.0, 1.0, seed=1)


def _load(ctx: int) -> Load:
    """As the daemon would load it, but for one prompt at a time."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            node="reference",
            state_dir=Path(folder),
            model=ModelSettings(store=Path(folder)),
            engine=EngineSettings(name="llama_cpp", slots=1, ctx=ctx),
        )
        supply = Supply(settings)
        supply.start(unclean=False)
        return replace(asyncio.run(supply.next_load()), speculates=False)


def _reference(said: Sequence[Up], gaps: list[float]) -> Reference:
    text, ends = "", []
    for each in said:
        if isinstance(each, Piece):
            text += each.text
            ends.append((len(text), each.n))
        elif isinstance(each, Finished) and each.text:
            text += each.text
            ends.append((len(text), each.completion_tokens))
    return Reference(text, ends, gaps)


def _digest(texts: Sequence[str], ctx: int) -> str:
    digest = hashlib.sha256(BUNDLED_MODEL.read_bytes())
    digest.update(json.dumps([texts, ctx, MAX_TOKENS]).encode())
    return digest.hexdigest()[:16]
