"""``edged models``: what weights there are, and what a file holds."""

from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged.engine.registry import BUNDLED_MODEL
from edged.errors import ModelFileError
from edged.models.convert import convert_phi3_to_llama
from edged.models.gguf import Header, check_model, read_header
from edged.settings import load_settings

_MIB = 2**20


@click.group(name="models")
def command() -> None:
    """List, show or convert model files."""


@command.command(name="list")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.pass_obj
def list_(config: Path | None, folders: tuple[Path, ...]) -> None:
    """List the bundled model, the one that is set, and the GGUF files in FOLDERS."""
    chosen = load_settings(config).model.path
    files = [BUNDLED_MODEL, *([chosen] if chosen else [])]
    for folder in folders:
        files += sorted(folder.glob("*.gguf"))
    table = Table("", "model", "quant", "MiB", "context", "file")
    for file in dict.fromkeys(files):
        mark = "→" if file == (chosen or BUNDLED_MODEL) else ""
        try:
            header = read_header(file)
            check_model(header)
        except ModelFileError as error:
            table.add_row(mark, Text("unusable", style="red"), "", "", "", str(error), style="dim")
            continue
        size = f"{header.file_bytes / _MIB:.1f}"
        table.add_row(
            *(mark, header.name, header.quantisation, size, str(header.context_length), str(file))
        )
    Console(markup=False).print(table)


@command.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def show(config: Path | None, file: Path | None) -> None:
    """Show what the header of FILE says; without FILE, of the model that is set."""
    header = read_header(file or load_settings(config).model.path or BUNDLED_MODEL)
    table = Table(show_header=False)
    for name, value in facts(header).items():
        table.add_row(name, value)
    Console(markup=False).print(table)
    check_model(header)


def facts(header: Header) -> dict[str, str]:
    """What a reader wants to know of a model, in words."""
    kinds = Counter(tensor.type.name for tensor in header.tensors)
    shape = {
        "layers": "block_count",
        "hidden size": "embedding_length",
        "feed-forward size": "feed_forward_length",
        "attention heads": "attention.head_count",
        "KV heads": "attention.head_count_kv",
    }
    return {
        "file": str(header.path),
        "name": header.name,
        "architecture": header.architecture,
        "quantisation": header.quantisation,
        "size": f"{header.file_bytes:,} bytes",
        "context": f"{header.context_length} tokens",
        **{
            label: str(header.metadata.get(f"{header.architecture}.{key}", "-"))
            for label, key in shape.items()
        },
        "tokenizer": str(header.metadata.get("tokenizer.ggml.model", "none")),
        "chat template": "yes" if "tokenizer.chat_template" in header.metadata else "no",
        "tensors": ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
    }


@command.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def convert(source: Path, target: Path) -> None:
    """Rewrite SOURCE (phi3 layout) without loss as TARGET (llama layout, for ctransformers)."""
    with Console(stderr=True).status(f"converting {source} …"):
        convert_phi3_to_llama(source, target)
    click.echo(f"wrote {target} ({target.stat().st_size:,} bytes)")
