"""``edged models pull``: fetches a model, and shows how far it is."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from edged.models.pull import Report, pull, stopped
from edged.models.store import Store
from edged.models.targets import parse_target
from edged.settings import load_settings

INTERRUPTED_EXIT_CODE = 130  # as a shell has it: 128 + SIGINT


@click.command(name="pull")
@click.argument("target")
@click.option("--name", help="What to call it here, instead of by its file.")
@click.pass_obj
def command(config: Path | None, target: str, name: str | None) -> None:
    """Fetch a model into the store.

    TARGET is a NAME of the catalogue (or NAME:QUANT), hf:OWNER/REPOSITORY/FILE (perhaps with
    @REVISION), https://… or file:PATH. A pull that was stopped goes on where it was.
    """
    settings = load_settings(config).model
    token = settings.hub_token
    wanted = parse_target(target, token.get_secret_value() if token else None, name)
    store = Store(settings.store)
    try:
        with progress() as report:
            pulled = pull(wanted, store, report)
    except KeyboardInterrupt:
        click.echo(f"edged: stopped; {stopped(wanted, store)}", err=True)
        sys.exit(INTERRUPTED_EXIT_CODE)
    manifest = pulled.model.manifest
    assert manifest is not None
    by = "the hub's SHA-256" if manifest.sha256_from == "hub" else "its SHA-256, computed here"
    click.echo(
        f"{manifest.name} {'is there already' if pulled.was_there else 'has arrived'}: "
        f"{manifest.size_bytes:,} bytes, verified by {by} ({manifest.sha256})",
    )


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on a terminal; else a line when something new begins, and one every 10 %."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:
        yield _Bar(shown)


class _Bar:
    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._task = shown.add_task("asking", total=None)
        self._what = ""

    def __call__(self, what: str, done_bytes: int, total_bytes: int | None) -> None:
        if what != self._what:  # another task, so that its speed is its own
            self._what = what
            self._shown.remove_task(self._task)
            self._task = self._shown.add_task(what, total=total_bytes, completed=done_bytes)
        self._shown.update(self._task, completed=done_bytes, total=total_bytes)


class _Lines:
    def __init__(self) -> None:
        self._said = ("", -1)

    def __call__(self, what: str, done_bytes: int, total_bytes: int | None) -> None:
        tenth = done_bytes * 10 // total_bytes if total_bytes else 0
        if (what, tenth) == self._said:
            return
        self._said = (what, tenth)
        how_far = f" {tenth * 10} % of {total_bytes:,} bytes" if total_bytes else ""
        click.echo(f"{what}{how_far}", err=True)
