"""`python -m tools.tiny_model all` makes the bundled model; the steps can be run one at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from tools.tiny_model import dataset

ROOT = Path(__file__).parents[2]
ASSET = ROOT / "edged" / "assets" / "edged-tiny-phi3-q4_0.gguf"
WORK = ROOT / "build" / "tiny_model"
SAMPLES = 90_000

work_option = click.option(
    "--work", type=click.Path(path_type=Path), default=WORK, help="Where intermediate files go."
)
samples_option = click.option(
    "--samples", default=SAMPLES, show_default=True, help="Conversations."
)
out_option = click.option(
    "--out", type=click.Path(path_type=Path), default=ASSET, show_default=True
)


@click.group()
def main() -> None:
    """Make edged's bundled model."""
    # Threads that spin at each barrier triple the time on a machine that does anything else;
    # read when torch loads its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@main.command()
@work_option
@samples_option
def data(work: Path, samples: int) -> None:
    """Write the training set, the vocabulary and the held-out commands."""
    from tools.tiny_model.model import Shape  # noqa: PLC0415 - torch takes seconds to import
    from tools.tiny_model.vocabulary import train_vocabulary  # noqa: PLC0415

    size = dataset.write_training_set(work / "training.jsonl", samples)
    click.echo(f"{samples:,} conversations, {size / 1e6:.1f} MB")
    click.echo(f"{dataset.write_commands()} held-out commands")
    texts = (
        text
        for sample in dataset.read_training_set(work / "training.jsonl")
        for text in (sample["system"], *(part for turn in sample["turns"] for part in turn))
        if text
    )
    train_vocabulary(texts, work / "vocabulary.model", Shape().vocabulary)
    click.echo("vocabulary written")


@main.command()
@work_option
@click.option("--epochs", default=1.0, show_default=True)
@click.option("--threads", default=2, show_default=True)
def train(work: Path, epochs: float, threads: int) -> None:
    """Train on the training set."""
    from tools.tiny_model import train as training  # noqa: PLC0415 - torch
    from tools.tiny_model.model import Shape  # noqa: PLC0415
    from tools.tiny_model.vocabulary import Vocabulary  # noqa: PLC0415

    seconds = training.train(
        dataset.read_training_set(work / "training.jsonl"),
        Vocabulary(work / "vocabulary.model"),
        Shape(),
        training.Recipe(epochs=epochs, threads=threads),
        work / "checkpoint.pt",
    )
    click.echo(f"trained in {seconds / 60:.1f} minutes")


@main.command()
@work_option
@out_option
def export(work: Path, out: Path) -> None:
    """Write the 4-bit GGUF."""
    from tools.tiny_model.export import export as write  # noqa: PLC0415 - torch
    from tools.tiny_model.vocabulary import Vocabulary  # noqa: PLC0415

    size = write(work / "checkpoint.pt", Vocabulary(work / "vocabulary.model"), out)
    click.echo(f"{out}: {size:,} bytes")


@main.command()
@work_option
@out_option
@click.option("--threads", default=2, show_default=True)
@samples_option
def evaluate(work: Path, out: Path, threads: int, samples: int) -> None:
    """Measure the GGUF with llama.cpp, beside a look-up of the nearest training prompt."""
    from tools.tiny_model.evaluate import evaluate as measure  # noqa: PLC0415 - llama.cpp

    result = measure(out, work / "vocabulary.model", samples, threads)
    click.echo(json.dumps(result, indent=2))


@main.command(name="all")
@work_option
@samples_option
@out_option
@click.pass_context
def everything(context: click.Context, work: Path, samples: int, out: Path) -> None:
    """Make the data, train, export and measure."""
    context.invoke(data, work=work, samples=samples)
    context.invoke(train, work=work)
    context.invoke(export, work=work, out=out)
    context.invoke(evaluate, work=work, out=out, samples=samples)


if __name__ == "__main__":
    main()
