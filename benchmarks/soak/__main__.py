"""`python -m benchmarks.soak`: mixed traffic for an hour, and whether anything is left behind.

A broker and a daemon with the bundled model; clients that ask, cancel, repeat themselves, miss
deadlines and vanish in the middle of an answer. Needs mosquitto and llama-cpp-python. Ctrl-C ends
it early and prints what was measured so far.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.bus import daemon
from benchmarks.soak.figures import checks, memory
from benchmarks.soak.run import SETTINGS, Plan, Soak, soak
from benchmarks.soak.tables import MIB, as_json, conditions, show
from edged.cli.local_broker import find_mosquitto, local_broker

SHORTEST_MINUTES = 2.0
LOG_LINES = 20
EXIT_INTERRUPTED = 130


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=SHORTEST_MINUTES),
    default=60.0,
    show_default=True,
    help="Of traffic; the first tenth, and at least one minute, is for warming up.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the results here."
)
@click.option("--seed", default=1, show_default=True, help="Of all that the clients draw.")
def main(minutes: float, json_file: Path | None, seed: int) -> None:
    """Soak the daemon; exit code 1 where a figure misses its limit."""
    if find_mosquitto() is None:
        raise click.ClickException("mosquitto is needed; install it: apt-get install mosquitto")
    # A shell that starts this in the background has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console(width=None if sys.stdout.isatty() else 160)
    load_before = os.getloadavg()[0]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            local_broker(folder) as (_, port),
            daemon(folder, port, "soak", **SETTINGS) as node,
            Progress(*columns, console=console, transient=True) as progress,
        ):
            bar = progress.add_task("", total=60 * minutes)
            found = soak(
                port,
                node,
                Plan(seconds=60 * minutes, seed=seed),
                lambda now: progress.update(
                    bar, completed=now.traffic_s, description=_description(now)
                ),
            )
        log = (folder / "edged.log").read_text(errors="replace").splitlines()
    where = conditions(node, load_before)
    judged = memory(found) if found.is_interrupted else checks(found)
    show(console, found, judged, where)
    if json_file:
        json_file.write_text(json.dumps(as_json(found, judged, where), indent=2) + "\n")
    if found.is_interrupted:
        console.print(f"interrupted after {found.traffic_s:.0f} s; nothing was judged")
        sys.exit(EXIT_INTERRUPTED)
    if not all(check.holds for check in judged):
        console.print("the daemon's last words, without what it rejected:")
        words = [line for line in log if " rejected " not in line]
        console.print("\n".join(words[-LOG_LINES:]), markup=False, highlight=False)
        sys.exit(1)


def _description(now: Soak) -> str:
    held = ", ".join(
        f"{name} {process.resident_bytes / MIB:.1f} MiB"
        for name, process in now.samples[-1].processes.items()
    )
    return f"{now.ledger.asked} prompts, {now.ledger.open} open; {held}"


if __name__ == "__main__":
    main()
