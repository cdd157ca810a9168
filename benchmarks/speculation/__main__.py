"""`python -m benchmarks.speculation`: decode speed with prompt lookup ÷ without, in pairs.

The step loop runs as in the worker, on a full-size shape model; recorded answers stand in for the
sampling (``texts``). Then the bundled model answers held-out prompts both ways, and the texts are
compared: they may differ only where the two best logits are nearly equal.
"""

import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.speculation.texts import Exchange, exchanges
from edged.engine.costs import StepCosts
from edged.engine.frames import Finished, Load, Piece, Submit, Up
from edged.engine.handle import WORKER_ENVIRONMENT
from edged.engine.llama_cpp import LlamaCppEngine
from edged.engine.protocol import BatchChunk, Engine, Logits, Picker
from edged.engine.registry import open_engine
from edged.engine.step_loop import StepLoop
from edged.engine.worker import first_answer
from edged.hardware.machine import read_machine
from edged.messages import ChatMessage, Sampling
from edged.models.catalogue import read_catalogue
from edged.models.gguf import read_header
from edged.models.shape_file import write_shape_file

MODEL, QUANT = "phi-3-mini-4k-instruct", "q4_0"
REPETITIVE, NEVER_UNDER, TIE = 1.2, 0.97, 0.2
HELD_OUT = Path(__file__).parents[2] / "tools/tiny_model/eval/commands.json"
MAX_TOKENS = 60
BOTH_WAYS = (False, True)


class Recorded:
    """An engine that computes every step and says what was recorded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._exchange: Exchange | None = None
        self._answer_at: int | None = None
        self._next = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def play(self, exchange: Exchange) -> None:
        """Say its answer to the prompt that comes next, whose text is the exchange's name."""
        self._exchange, self._answer_at = exchange, None

    def tokenise(self, text: str, *, parse_special: bool) -> list[int]:
        """The recorded prompt for its name."""
        if self._exchange is not None and text == self._exchange.name:
            return self._exchange.prompt
        return self._engine.tokenise(text, parse_special=parse_special)

    def decode(self, batch: Sequence[BatchChunk]) -> None:
        """See ``Engine``."""
        self._engine.decode(batch)
        (chunk,) = batch
        self._next = chunk.position + len(chunk.tokens) - chunk.outputs + 1

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        """The recorded token; the engine's own choice is made, and thrown away."""
        self._engine.sample(sequence, picker, row)
        assert self._exchange is not None
        if self._answer_at is None:
            self._answer_at = self._next
        return self._exchange.answer[self._next + row - self._answer_at]


@dataclass(frozen=True)
class Row:
    """One exchange; ``ratios`` of decode speed, pair by pair."""

    exchange: str
    prompt_tokens: int
    answer_tokens: int
    drafted: int
    accepted: int
    without_tokens_per_s: float
    ratios: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


def answer(engine: Engine, prompt: str, tokens: int, *, speculates: bool) -> tuple[str, Finished]:
    """One prompt, from nothing; its text and its end."""
    said: list[Up] = []
    loop = StepLoop(engine, said.append, costs=COSTS[id(engine)], speculates=speculates)
    sampling = Sampling(tokens, 0.0, 0, 1.0, 0.0, 1.0, seed=1)
    loop.submit(Submit(1, (ChatMessage("user", prompt),), sampling))
    while not loop.idle:
        loop.step()
    loop.forget_prefixes()
    end = said[-1]
    assert isinstance(end, Finished), end
    return "".join(each.text for each in said if isinstance(each, Piece | Finished)), end


PAIR_TOKENS = 120
"""Fewer say more of the machine's moment than of speculation."""
COSTS: dict[int, StepCosts] = {}
"""What steps of an engine take, as its worker would have measured at the start."""


def measure(engine: Recorded, exchange: Exchange, pairs: int) -> Row:
    """Pairs without and with drafts, turn by turn; of short answers several make one."""
    ratios, speeds = [], []
    drafted = accepted = 0
    tokens = len(exchange.answer)
    for pair in range(pairs):
        decode_s = dict.fromkeys(BOTH_WAYS, 0.0)
        turns = math.ceil(PAIR_TOKENS / tokens)
        for turn in range(turns):
            for speculates in BOTH_WAYS[:: (-1) ** (pair + turn)]:
                engine.play(exchange)
                _, end = answer(engine, exchange.name, tokens, speculates=speculates)  # type: ignore[arg-type]
                assert end.completion_tokens == tokens
                decode_s[speculates] += end.decode_s
                if speculates:
                    drafted, accepted = end.drafted_tokens, end.accepted_tokens
        ratios.append(decode_s[False] / decode_s[True])
        speeds.append(turns * (tokens - 1) / decode_s[False])
    lengths = len(exchange.prompt), len(exchange.answer)
    return Row(exchange.name, *lengths, drafted, accepted, statistics.median(speeds), ratios)


@dataclass(frozen=True)
class Comparison:
    """The bundled model's answers to held-out prompts, both ways."""

    prompts: int
    ties: int
    """Texts that part where the two best logits are closer than ``TIE``."""
    wrong: list[str]
    """Prompts whose texts part elsewhere."""
    drafted: int
    accepted: int
    ratio: float
    """Of the seconds spent decoding, all of them together."""


class Watched:
    """An engine that notes what was chosen, and how far the best logit was ahead of the second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.chosen: list[tuple[int, float]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def sample(self, sequence: int, picker: Picker, row: int = 0) -> int:
        """See ``Engine``."""
        chosen = self.chosen

        class Noting:
            def pick(self, logits: Logits) -> int:
                second, first = np.partition(logits, -2)[-2:]
                token = picker.pick(logits)
                chosen.append((token, float(first - second)))
                return token

        return self._engine.sample(sequence, Noting(), row)


def compare(prompts: Sequence[str]) -> Comparison:
    """Texts first, while each choice is watched; then times."""
    engine = open_engine(Load("llama_cpp", None, "", 1024, 1, 1, 0))
    watched = Watched(engine)
    COSTS[id(engine)] = COSTS[id(watched)] = first_answer(engine)
    ties, wrong = 0, []
    drafted = accepted = 0
    for prompt in track(prompts, "bundled model", console=Console(stderr=True)):
        texts, chosen = [], []
        for speculates in BOTH_WAYS:
            watched.chosen = []
            text, end = answer(watched, prompt, MAX_TOKENS, speculates=speculates)  # type: ignore[arg-type]
            texts.append(text)
            chosen.append(watched.chosen)
            drafted += end.drafted_tokens
            accepted += end.accepted_tokens
        if texts[0] != texts[1]:
            parting = next(pair for pair in zip(*chosen, strict=False) if pair[0][0] != pair[1][0])
            if min(gap for _, gap in parting) < TIE:
                ties += 1
            else:
                wrong.append(prompt)
    seconds = dict.fromkeys(BOTH_WAYS, 0.0)
    for prompt in prompts:
        for speculates in BOTH_WAYS:
            _, end = answer(engine, prompt, MAX_TOKENS, speculates=speculates)
            seconds[speculates] += end.decode_s
    engine.close()
    ratio = seconds[False] / seconds[True]
    return Comparison(len(prompts), ties, wrong, drafted, accepted, ratio)


@click.command()
@click.option("--shape", type=click.Path(path_type=Path, dir_okay=False), help="A shape model.")
@click.option("--threads", type=int, default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--pairs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--only", default="", help="Only exchanges whose name contains this.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write results here.")
def main(shape: Path | None, threads: int, pairs: int, only: str, json_file: Path | None) -> None:
    """Measure both models; exit code 1 where a figure misses its goal."""
    if not WORKER_ENVIRONMENT.keys() <= os.environ.keys():  # as the daemon starts its worker
        again = [sys.executable, "-m", "benchmarks.speculation", *sys.argv[1:]]
        os.execve(sys.executable, again, WORKER_ENVIRONMENT | os.environ)  # noqa: S606 (no shell is wanted)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = shape or Path(folder) / "shape.gguf"
        if shape is None:
            write_shape_file(read_catalogue().find(MODEL), QUANT, path, progress=lambda _: None)
        load = Load("llama_cpp", str(path), "", 1536, 1, threads, 0, flash_attention=False)
        engine = LlamaCppEngine(load, read_header(path))
    recorded = Recorded(engine)
    COSTS[id(recorded)] = first_answer(engine)
    said = [each for each in exchanges() if only in each.name]
    rows = [
        measure(recorded, exchange, pairs)
        for exchange in track(said, f"{MODEL} {QUANT}", console=Console(stderr=True))
    ]
    engine.close()
    comparison = compare([case["prompt"] for case in json.loads(HELD_OUT.read_text("utf-8"))])
    console = Console()
    console.print(_table(rows))
    console.print(
        f"Bundled model, {comparison.prompts} held-out prompts, greedy: "
        f"{comparison.prompts - comparison.ties - len(comparison.wrong)} texts the same, "
        f"{comparison.ties} part at a tie of less than {TIE}, {len(comparison.wrong)} elsewhere; "
        f"{comparison.accepted} of {comparison.drafted} drafts taken; "
        f"{comparison.ratio:.2f} x the speed without"
    )
    console.print(
        f"{read_machine().cpu_model}, {threads} threads; load average {before:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after"
    )
    if json_file is not None:
        results = {"rows": [asdict(row) for row in rows], "bundled": asdict(comparison)}
        json_file.write_text(json.dumps(results, indent=2))
    holds = (
        (only or rows[0].median >= REPETITIVE)
        and min(row.median for row in rows) >= NEVER_UNDER
        and comparison.ratio >= NEVER_UNDER
        and not comparison.wrong
    )
    raise SystemExit(0 if holds else 1)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=MARKDOWN)
    heads = (
        "answer",
        "prompt",
        "answer tokens",
        "drafts taken",
        "without, tokens/s",
        "with ÷ without",
    )
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(
            row.exchange,
            str(row.prompt_tokens),
            str(row.answer_tokens),
            f"{row.accepted} of {row.drafted}",
            f"{row.without_tokens_per_s:.1f}",
            f"{row.median:.2f} ({min(row.ratios):.2f} to {max(row.ratios):.2f})",
        )
    return table


if __name__ == "__main__":
    main()
