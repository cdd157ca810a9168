"""`python -m benchmarks.engine`: edged as a whole, its bare engine, and llama.cpp's own server.

Each case is what `edged bench` does, on a full-size shape model (random weights), in pairs;
docs/bench.md says what is measured. Needs Mosquitto, `pip install 'edged[bench]'`, 5 GB of disk for
the shape models, 12 GB of memory, and an hour on two quiet cores.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.engine.prefix import warm_prefixes
from benchmarks.engine.roofline import roofline
from edged.bench.comparison import compare, threads_for
from edged.bench.rounds import Work
from edged.bench.servers import LLAMA_SERVER
from edged.cli.local_broker import local_broker
from edged.models.catalogue import read_catalogue
from edged.models.gguf import read_header
from edged.models.quantisation import Quantisation
from edged.models.shape_file import write_shape_file
from edged.settings import EngineSettings

MODEL = "phi-3-mini-4k-instruct"
PREFIX = "warm prefix"
ROOFLINE = "roofline"
LONG_PROMPT = 128
"""Tokens; above it a case says how many."""


@dataclass(frozen=True)
class Case:
    """One comparison."""

    quant: Quantisation
    against: str
    clients: int = 1
    prompt_tokens: int = 128
    tokens: int = 64
    contention: bool = False

    @property
    def name(self) -> str:
        """As ``--only`` and the results have it."""
        clients = f"{self.clients} client{'s' * (self.clients > 1)}"
        beside = ", contention" if self.contention else ""
        long = f", prompts of {self.prompt_tokens}" if self.prompt_tokens > LONG_PROMPT else ""
        return f"{self.quant} against {self.against}, {clients}{beside}{long}"


CASES = (
    Case("q4_0", "direct", tokens=128),
    Case("q4_k_m", "direct", tokens=128),
    *(
        Case(quant, "xllamacpp", clients, prompt_tokens, tokens)
        for quant in ("q4_0", "q4_k_m")
        for clients, prompt_tokens, tokens in ((1, 128, 64), (4, 64, 32), (8, 64, 32))
    ),
    # Built with the flags of edged's own, where `benchmarks.engine.build_peer` has done that.
    *(
        Case("q4_0", "llama_server", clients, prompt_tokens, tokens)
        for clients, prompt_tokens, tokens in (
            (1, 128, 64),
            (1, 1024, 64),
            (4, 64, 32),
            (8, 64, 32),
        )
        if shutil.which(LLAMA_SERVER)
    ),
    # Each side with the threads that it takes by itself.
    *(Case(quant, "xllamacpp", 1, 32, 32, contention=True) for quant in ("q4_0", "q4_k_m")),
)


@dataclass(frozen=True)
class Row:
    """A line of the table; ``goal`` is what the median must reach, ``None`` of one without."""

    case: str
    figure: str
    least: float
    middle: float
    most: float
    goal: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool:
        if self.goal is None:
            return True
        return self.middle <= self.goal if self.at_most else self.middle >= self.goal


@click.command()
@click.option(
    "--shapes",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the shape models here for the next time.",
)
@click.option("--only", default="", help="Only cases that contain this text, such as 'contention'.")
@click.option("--rounds", default=5, show_default=True, help="Pairs that count.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Keep results here, each as it comes; cases that are there already are not run again.",
)
def main(shapes: Path | None, only: str, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the committed table; exit code 1 where a row misses its goal."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    results = json.loads(json_file.read_text()) if json_file and json_file.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = shapes or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for case_name, run in _runs(folder, rounds):
            if only not in case_name or case_name in results:
                continue
            console.print(f"{case_name} …")
            with tempfile.TemporaryDirectory() as own, local_broker(Path(own)) as (_, port):
                results[case_name] = run(port)
            if json_file:
                json_file.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    rows = [row for case_name, found in results.items() for row in _rows(case_name, found)]
    console.print(_table(rows))
    for line in _conditions(results):
        console.print(line, soft_wrap=True)
    sys.exit(not all(row.holds for row in rows))


def _runs(folder: Path, rounds: int) -> Iterator[tuple[str, Callable[[int], dict[str, Any]]]]:
    """What there is to do, by name; given a broker's port, it is done."""
    for case in CASES:
        yield case.name, lambda port, case=case: _compare(case, folder, port, rounds)
    yield f"q4_0 {PREFIX}", lambda port: _prefix(folder, port, rounds)
    for quant in ("q4_0", "q4_k_m"):
        yield (
            f"{quant} {ROOFLINE}",
            lambda _, quant=quant: roofline(_shape_file(quant, folder), rounds),
        )


def _compare(case: Case, folder: Path, port: int, rounds: int) -> dict[str, Any]:
    work = Work(case.clients, case.prompt_tokens, case.tokens, rounds, case.contention)
    outcome = compare(
        _shape_file(case.quant, folder),
        work,
        case.against,
        EngineSettings(),
        port,
        at_defaults=case.contention,
    )
    return outcome.results


def _prefix(folder: Path, port: int, rounds: int) -> dict[str, Any]:
    model = _shape_file("q4_0", folder)
    settings = EngineSettings(threads=threads_for(read_header(model)))
    load_before = os.getloadavg()[0]
    pairs = warm_prefixes(model, settings, port, rounds)
    return {
        "ratios": [pair.ratio for pair in pairs],
        "cold_ms": [1000 * (pair.cold.first_token_s - pair.cold.asked_s) for pair in pairs],
        "warm_ms": [1000 * (pair.warm.first_token_s - pair.warm.asked_s) for pair in pairs],
        "prompt_tokens": [pair.warm.prompt_tokens for pair in pairs],
        "cached_tokens": [pair.warm.cached_tokens for pair in pairs],
        "load_average": [load_before, os.getloadavg()[0]],
    }


def _shape_file(quant: Quantisation, folder: Path) -> Path:
    """The shape model, written unless it is there."""
    path = folder / f"{MODEL}-{quant}.gguf"
    if not path.exists():
        write_shape_file(read_catalogue().find(MODEL), quant, path)
    return path


def _rows(name: str, found: dict[str, Any]) -> Iterator[Row]:
    """What a case shows."""

    def row(
        figure: str, spread: dict[str, float], goal: float | None, *, most: bool = False
    ) -> Row:
        return Row(name, figure, spread["min"], spread["median"], spread["max"], goal, most)

    if PREFIX in name:
        ratios = found["ratios"]
        cached, of = median(found["cached_tokens"]), median(found["prompt_tokens"])
        figure = f"first token, warm ÷ cold ({cached:.0f} of {of:.0f} tokens cached)"
        yield Row(name, figure, min(ratios), median(ratios), max(ratios), 0.10, at_most=True)
        return
    if ROOFLINE in name:
        yield from _roofline_rows(name, found)
        return
    if "contention" in found:
        busy = found["contention"]
        yield row("decode, busy ÷ idle", busy["subject_busy_to_idle"], 0.50)
        yield row("decode of the peer, busy ÷ idle", busy["peer_busy_to_idle"], None)
        yield row("decode, busy, edged ÷ peer", busy["decode_ratio"], 2.0)
        yield row("decode, idle, edged ÷ peer", found["decode_ratio"], None)
        return
    if found["conditions"]["peer"]["name"] == "direct":
        yield row("decode, MQTT ÷ direct", found["decode_ratio"], 0.97)
        yield row("added to the first token, ms", found["added_first_token_ms"], 5.0, most=True)
        return
    yield row("tokens/s of all, edged ÷ peer", found["ratio"], 1.0)
    yield row("decode of one, edged ÷ peer", found["decode_ratio"], None)


def _roofline_rows(name: str, found: dict[str, Any]) -> Iterator[Row]:
    """Decoding over what memory alone, arithmetic alone, and both in turn would allow."""
    shares: dict[str, list[float]] = {}
    for each in found["rounds"]:
        memory = each["read_bytes_per_s"] / found["bytes_a_token"]
        arithmetic = each["prefill_tokens_per_s"]
        in_turn = 1 / (1 / memory + 1 / arithmetic)
        decode, one = each["decode_tokens_per_s"], each["decode_tokens_per_s_of_one_thread"]
        for figure, share in (
            ("decode ÷ what the memory's read speed allows", decode / memory),
            ("decode ÷ what the integer dot products allow", decode / arithmetic),
            ("decode ÷ what both allow, one after the other", decode / in_turn),
            (f"decode, {found['threads']} threads ÷ 1 thread", decode / one),
        ):
            shares.setdefault(figure, []).append(share)
    for figure, values in shares.items():
        yield Row(name, figure, min(values), median(values), max(values))


def _table(rows: list[Row]) -> Table:
    shown = Table(title="The engine, pair by pair", box=MARKDOWN)
    shown.add_column("case", no_wrap=True)
    shown.add_column("figure", no_wrap=True)
    for column in ("least", "median", "most", "goal"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        goal = "" if row.goal is None else f"{'≤' if row.at_most else '≥'} {row.goal:.2f}"
        figures = (f"{each:.3g}" for each in (row.least, row.middle, row.most))
        shown.add_row(row.case, row.figure, *figures, goal, style="" if row.holds else "red")
    return shown


def _conditions(results: dict[str, Any]) -> Iterator[str]:
    """Once what is the same for all: the machine and how both sides were built."""
    seen = [found["conditions"] for found in results.values() if "conditions" in found]
    if not seen:
        return
    loads = [each[f"load_average_{when}"][0] for each in seen for when in ("before", "after")]
    yield (
        f"{seen[0]['cpu_model']}, {seen[0]['cores']} cores, kernel {seen[0]['kernel']}, Python "
        f"{seen[0]['python']}; load average {min(loads):.1f} to {max(loads):.1f}"
    )
    sides = {}
    for each in seen:
        subject, peer = each["subject"], each["peer"]
        engine = f"{subject['engine']} {subject['engine_version']}"
        sides[f"edged {subject['version']} with {engine}: {subject['build']}"] = None
        if "build" in peer:
            sides[f"{peer['name']} {peer['version']}: {peer['build']}"] = None
    yield from sides


if __name__ == "__main__":
    main()
