"""`python -m benchmarks.chaos`: what is promised, under everything that goes wrong at once.

A Mosquitto that keeps its state, a daemon with the bundled model, clients that ask again. Worker,
daemon and broker are killed, the network between them is cut, slow and lossy, the disk full, the
clock stepped. Needs root for the network and the disk, mosquitto, iproute2, nftables,
libfaketime and llama-cpp-python.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.chaos.node import KEEP_S
from benchmarks.chaos.storm import Plan, storm
from benchmarks.chaos.tables import as_json, conditions, show
from edged.settings import default_store

LONGEST_MINUTES = 0.75 * KEEP_S / 60
"""Answers must be kept until they are asked for once more, at the end."""


@click.command()
@click.option("--prompts", default=2000, show_default=True, help="Each with a text of its own.")
@click.option("--clients", default=20, show_default=True, help="That ask them.")
@click.option("--faults", default=12, show_default=True, help="Of each kind.")
@click.option(
    "--minutes",
    type=click.FloatRange(0.2, LONGEST_MINUTES),
    default=20.0,
    show_default=True,
    help="In which all faults happen; what is open then is waited for.",
)
@click.option("--seed", default=1, show_default=True, help="Of prompts, times and faults.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the results here."
)
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Copy logs and the book here."
)
def main(  # noqa: PLR0917 (click's options)
    prompts: int,
    clients: int,
    faults: int,
    minutes: float,
    seed: int,
    json_file: Path | None,
    keep: Path | None,
) -> None:
    """Let the storm loose; exit code 1 where a promise was broken."""
    # A shell that starts this in the background has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console(width=None if sys.stdout.isatty() else 160)
    load_before = os.getloadavg()[0]
    plan = Plan(prompts, clients, faults, 60 * minutes, seed)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=None)

            def look(words: str, done: int, of: int) -> None:
                progress.update(bar, description=words, completed=done, total=of)

            try:
                found = storm(plan, folder, default_store().parent, look)
            finally:
                if keep is not None:
                    _keep(folder, keep)
    where = conditions(load_before)
    show(console, found, where)
    if json_file:
        json_file.write_text(json.dumps(as_json(found, where), indent=2) + "\n")
    sys.exit(bool(found.verdict.violations))


def _keep(folder: Path, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    for file in (*folder.glob("*.log"), *folder.glob("*.jsonl")):
        shutil.copy(file, keep)


if __name__ == "__main__":
    main()
