"""``edged bench``: how fast this machine answers, alone or beside other ways to serve a model."""

import contextlib
import importlib.util
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edged.bench.busy import core_to_keep_busy
from edged.bench.comparison import PEER_NAMES, compare
from edged.bench.rounds import Work
from edged.bench.servers import require
from edged.bench.sweep import counts, sweep
from edged.cli.bench_chart import draw, report
from edged.cli.local_broker import find_mosquitto, local_broker
from edged.engine.operating_points import write_operating_points
from edged.engine.planning import candidates_of
from edged.errors import BrokerError, ConfigError, EdgedError, ModelFileError
from edged.models.catalogue import read_catalogue
from edged.models.quantisation import Quantisation
from edged.models.selection import read_selection
from edged.models.shape_file import write_shape_file
from edged.models.store import Store
from edged.settings import Settings, load_settings

_CLIENTS: Final = click.IntRange(1, 64)
_MANY: Final = click.IntRange(1, 1_000_000)


@click.command(name="bench")
@click.option("--model", metavar="M", help="A GGUF file, or a name in the store.")
@click.option("--shape", metavar="NAME", help="A model of the catalogue with random weights.")
@click.option(
    "--quant",
    type=click.Choice(get_args(Quantisation)),
    default="q4_k_m",
    show_default=True,
    help="Of --shape.",
)
@click.option("--clients", type=_CLIENTS, default=1, show_default=True, help="Who ask at once.")
@click.option(
    "--prompt-tokens", type=_MANY, default=128, show_default=True, help="Of each prompt, about."
)
@click.option("--tokens", type=_MANY, default=64, show_default=True, help="Of each answer.")
@click.option("--rounds", type=_MANY, default=5, show_default=True, help="Pairs that count.")
@click.option("--against", type=click.Choice(PEER_NAMES), help="Measure this in turns with edged.")
@click.option(
    "--contention", is_flag=True, help="Each round also while another process keeps a core busy."
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Of both sides.")
@click.option(
    "--defaults", "at_defaults", is_flag=True, help="Each side takes the threads it would take."
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write the results here; - is stdout.",
)
@click.option("--save", is_flag=True, help="Try all numbers of threads, and plan with the best.")
@click.option(
    "--png", type=click.Path(path_type=Path, dir_okay=False), help="Draw the rounds (matplotlib)."
)
@click.pass_obj
def command(  # noqa: PLR0917 (click passes them by name)
    config: Path | None,
    model: str | None,
    shape: str | None,
    quant: Quantisation,
    clients: int,
    prompt_tokens: int,
    tokens: int,
    rounds: int,
    against: str | None,
    contention: bool,
    threads: int | None,
    at_defaults: bool,
    json_file: Path | None,
    save: bool,
    png: Path | None,
) -> None:
    """Measure edged as a whole: prompts over MQTT, on a broker and a daemon of its own.

    Without --model and --shape, on what this node would serve. docs/bench.md says what each figure
    means.
    """
    if model is not None and shape is not None:
        raise ConfigError("give --model or --shape, not both")
    if threads is not None and at_defaults:
        raise ConfigError("give --threads or --defaults, not both")
    settings = load_settings(config)
    work = Work(clients, prompt_tokens, tokens, rounds, contention)
    _check(work, against, png)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # nothing is left behind then, either
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-bench-")))
        steps = 1 + work.steps(has_peer=against is not None) + (len(counts()) if save else 0)
        progress = stack.enter_context(_progress(steps + (shape is not None)))
        if shape is not None:
            progress(f"writing {shape} {quant}")
            path = folder / f"{shape}-{quant}.gguf"
            write_shape_file(read_catalogue().find(shape), quant, path)
        else:
            path = _file(settings, model)
        _, port = stack.enter_context(local_broker(folder))
        outcome = compare(
            path,
            work,
            against,
            settings.engine,
            port,
            threads=threads,
            at_defaults=at_defaults,
            progress=progress,
        )
        results = outcome.results
        if save:
            points = sweep(outcome.load, folder, prompt_tokens, tokens, progress)
            file = write_operating_points(settings.state_dir, points)
            results["operating_points"] = points.model_dump(mode="json") | {
                "threads_decode": points.best.decode,
                "threads_prefill": points.best.prefill,
                "file": str(file),
            }
    _show(results, json_file)
    if png is not None:
        draw(results, png)


def _check(work: Work, against: str | None, png: Path | None) -> None:
    """What would otherwise fail late."""
    if find_mosquitto() is None:
        raise BrokerError("edged bench needs Mosquitto; install it with: apt-get install mosquitto")
    if against is not None:
        require(against)
    if work.contention:
        core_to_keep_busy()
    if png is not None and importlib.util.find_spec("matplotlib") is None:
        raise EdgedError("--png needs matplotlib; install it with: pip install matplotlib")


def _file(settings: Settings, name: str | None) -> Path:
    """The weights to measure: a file, a name in the store, or what this node would serve."""
    if name is not None:
        if Path(name).is_file():
            return Path(name)
        stored = {each.name: each for each in Store(settings.model.store).models()}
        if name in stored and stored[name].problem is None:
            return stored[name].path
        known = ", ".join(stored) or "none"
        raise ModelFileError(
            f"{name} is neither a file nor a usable model of the store (there: {known})"
        )
    candidates = candidates_of(settings, read_selection(settings.state_dir).model, {})
    best = max(candidates, key=lambda each: each.rank)
    assert best.path is not None
    return best.path


@contextlib.contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr; it is drawn twice a second at the most, for it takes processor time."""
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, refresh_per_second=2, transient=True) as bar:
        task = bar.add_task("", total=steps)
        told = 0

        def tell(what: str) -> None:
            nonlocal told
            bar.update(task, completed=told, description=what)
            told += 1

        yield tell


def _show(results: dict[str, Any], json_file: Path | None) -> None:
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    if json_file == Path("-"):
        click.echo(text, nl=False)
        return
    report(results)
    if json_file is not None:
        try:
            json_file.write_text(text, "utf-8")
        except OSError as error:
            raise EdgedError(f"{json_file} cannot be written: {error.strerror}") from None
