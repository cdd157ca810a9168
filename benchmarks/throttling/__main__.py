"""`python -m benchmarks.throttling`: every policy in every case, in virtual time.

A simulated Raspberry Pi 5 (docs/throttling-twin.md): nothing here is measured on a board. An hour
of virtual time takes a few seconds; all of them take some minutes on two cores.
"""

import json
import os
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from benchmarks.throttling.cells import Cell, cells, robust_cells
from benchmarks.throttling.criteria import GOALS, ROBUST_GOALS, judge
from benchmarks.throttling.tables import conclusion, tables
from edged.simulation.results import Results
from edged.simulation.run import simulate


@click.command()
@click.option("--only", default="", help="Only cells that contain this text: 'closed 35 steady'.")
@click.option("--minutes", default=60.0, show_default=True, help="Of virtual time, each.")
@click.option("--no-clock", is_flag=True, help="The cap on the clock is not granted.")
@click.option("--robust", is_flag=True, help="Boards of another structure than is assumed.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the results here.",
)
def main(only: str, minutes: float, no_clock: bool, robust: bool, json_file: Path | None) -> None:
    """Simulate, and print a table for each workload; exit code 1 where the governor misses."""
    chosen = _chosen((robust_cells if robust else cells)(minutes, has_clock=not no_clock), only)
    if not chosen:
        raise click.ClickException(f"no cell contains {only!r}")
    results = _run(chosen)
    goals = ROBUST_GOALS if robust else GOALS
    verdicts = judge(results, goals)
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False)
    for table in tables(results, verdicts):
        console.print(table)
        console.print()
    console.print(conclusion(results, verdicts, goals), soft_wrap=True)
    if json_file is not None:
        text = json.dumps([_as_json(cell, results, verdicts) for cell in results], indent=2)
        json_file.write_text(text + "\n")
    sys.exit(any(verdicts.values()))


def _chosen(every: Iterable[Cell], only: str) -> list[Cell]:
    """Those that are asked for; the oracle comes with what is compared with it."""
    known = list(every)
    places = {cell.place for cell in known if only in cell.name}
    return [
        cell
        for cell in known
        if only in cell.name or (cell.policy == "oracle" and cell.place in places)
    ]


def _run(chosen: list[Cell]) -> dict[Cell, Results]:
    """As many at once as there are cores."""
    found: dict[Cell, Results] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        futures: dict[Future[Results], Cell] = {
            pool.submit(simulate, cell.scenario, cell.policy): cell for cell in chosen
        }
        done: Iterable[Future[Results]] = as_completed(futures)
        for future in track(done, "cells", total=len(futures), console=Console(stderr=True)):
            found[futures[future]] = future.result()
    return {cell: found[cell] for cell in chosen}


def _as_json(
    cell: Cell, results: dict[Cell, Results], verdicts: dict[Cell, list[str]]
) -> dict[str, object]:
    oracle = results.get(cell.of_policy("oracle"))
    found = results[cell].as_json(None if oracle is None else oracle.tokens)
    return found | {"misses": verdicts.get(cell, [])}


if __name__ == "__main__":
    main()
