"""``edged models shape``: a file that weighs what a model weighs, and holds no model."""

from pathlib import Path
from typing import get_args

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edged.models.catalogue import read_catalogue
from edged.models.quantisation import Quantisation
from edged.models.shape_file import write_shape_file


@click.command()
@click.argument("name")
@click.option(
    "--quant",
    type=click.Choice(get_args(Quantisation)),
    default="q4_k_m",
    show_default=True,
    help="How its weights are quantised.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write.",
)
def shape(name: str, quant: Quantisation, output: Path) -> None:
    """Write a file of the shape of the catalogue's model NAME, with random weights.

    It takes the memory and the time that the real model takes, and answers nonsense.
    """
    entry = read_catalogue().find(name)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(str(output), total=entry.shape(quant).file_bytes)
        write_shape_file(entry, quant, output, progress=lambda size: progress.advance(task, size))
    click.echo(f"wrote {output} ({output.stat().st_size:,} bytes)")
