"""``edged simulate``: what heat does to a board, and what the governor makes of it."""

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edged.cli.real_engine import run_real
from edged.cli.simulation_table import report
from edged.errors import EdgedError
from edged.simulation.plot import plot
from edged.simulation.policies import POLICIES
from edged.simulation.run import simulate
from edged.simulation.scenario import Scenario
from edged.simulation.workloads import WORKLOADS

_MINUTES: Final = click.FloatRange(0, 10_000, min_open=True)


@click.command(name="simulate")
@click.option("--profile", metavar="P", default="pi5-8gb", show_default=True, help="The board.")
@click.option(
    "--case",
    metavar="CASE",
    default="bare",
    show_default=True,
    help="How it is cooled, as the profile knows it: bare, closed, case, small, cooler.",
)
@click.option(
    "--ambient",
    metavar="T",
    default="22",
    show_default=True,
    help="Of the air in degrees Celsius; 22:40@30 is 22 until minute 30, then 40.",
)
@click.option("--policy", type=click.Choice(list(POLICIES)), default="governor", show_default=True)
@click.option("--workload", type=click.Choice(list(WORKLOADS)), default="steady", show_default=True)
@click.option("--minutes", type=_MINUTES, default=60.0, show_default=True, help="Virtual ones.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of prompts and of noise.")
@click.option("--no-clock", is_flag=True, help="The cap on the clock is not granted.")
@click.option(
    "--real-engine",
    is_flag=True,
    help="In real time, around a real node with the bundled model; prompts without a pause.",
)
@click.option("--json", "for_programs", is_flag=True, help="For programs: docs/throttling-twin.md.")
@click.option(
    "--plot",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw it as a PNG (matplotlib).",
)
def command(  # noqa: PLR0917 (click passes them by name)
    profile: str,
    case: str,
    ambient: str,
    policy: str,
    workload: str,
    minutes: float,
    seed: int,
    no_clock: bool,
    real_engine: bool,
    for_programs: bool,
    picture: Path | None,
) -> None:
    """Run a simulated board in virtual time, and compare with what constant operation could do.

    Nothing here is measured: docs/throttling-twin.md has the equations and every constant.
    """
    if picture is not None and importlib.util.find_spec("matplotlib") is None:
        raise EdgedError("--plot needs matplotlib; install it with: pip install matplotlib")
    scenario = Scenario(profile, case, ambient, workload, minutes, seed, not no_clock)
    if real_engine:
        with _progress(minutes) as progress:
            seen = run_real(scenario, progress)
        click.echo(json.dumps(seen, indent=2, ensure_ascii=False))
        return
    with _progress(minutes * (2 if policy != "oracle" else 1)) as progress:
        results = simulate(scenario, policy, progress=progress, with_series=picture is not None)
        oracle = results
        if policy != "oracle":
            oracle = simulate(
                scenario, "oracle", progress=lambda minute: progress(minutes + minute)
            )
    if picture is not None:
        plot(results, picture)
    if for_programs:
        click.echo(json.dumps(results.as_json(oracle.tokens), indent=2))
    else:
        report(results, oracle.tokens)


@contextlib.contextmanager
def _progress(minutes: float) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("minute {task.completed:.0f}"), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=minutes)
        yield lambda minute: bar.update(task, completed=minute)
