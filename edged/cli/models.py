"""``edged models``: what weights there are, what a file holds, and the store's upkeep."""

import contextlib
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged.cli import pull
from edged.cli.shape import shape
from edged.cli.use import use
from edged.errors import ConfigError, EdgedError, ModelFileError
from edged.models.bundled import BUNDLED_MODEL
from edged.models.convert import convert_phi3_to_llama
from edged.models.gguf import Header, check_model, read_header
from edged.models.partial import forget, partials
from edged.models.selection import read_selection
from edged.models.store import Manifest, Store, StoredModel, remove_conversion
from edged.settings import Settings, load_settings
from edged.spool.running import running_pid

_MIB = 2**20


@click.group(name="models")
def command() -> None:
    """Fetch, list, show, verify, remove or convert model files."""


@command.command(name="list")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.pass_obj
def list_(config: Path | None, folders: tuple[Path, ...]) -> None:
    """List the bundled model, the one that is set, the store's, and the GGUF files in FOLDERS."""
    everything = load_settings(config)
    settings = everything.model
    models = Store(settings.store).models()
    chosen = _chosen(everything, models)
    stored = {model.path for model in models}
    first = [BUNDLED_MODEL, *([settings.path] if settings.path else [])]
    files = [file for file in dict.fromkeys(first) if file not in stored]
    for folder in folders:
        files += [file for file in sorted(folder.glob("*.gguf")) if file not in stored]
    table = Table("", "model", "quant", "MiB", "context", "checked", "from")
    for file in files:
        origin = "comes with edged" if file == BUNDLED_MODEL else str(file)
        _add_row(table, file, None, origin, is_chosen=file == chosen)
    for model in models:
        _add_stored_row(table, model, is_chosen=model.path == chosen)
    for partial, record in partials(settings.store):
        total = "" if record.size_bytes is None else f" of {record.size_bytes / _MIB:.0f}"
        arrived = f"{partial.arrived_bytes / _MIB:.0f}{total}"
        row = ("", record.name, "", arrived, "", "half arrived", record.source)
        table.add_row(*row, style="dim")
    Console(markup=False).print(table)
    if chosen is None:
        click.echo("→ none is chosen: the best that fits is served; see: edged plan")


def _chosen(settings: Settings, models: list[StoredModel]) -> Path | None:
    """What is served; ``None`` where that is for the plan to say."""
    if settings.model.path is not None:
        return settings.model.path
    named = read_selection(settings.state_dir).model
    if named is not None:
        return Store(settings.model.store).weights_path(named)
    return None if models else BUNDLED_MODEL


def _add_stored_row(table: Table, model: StoredModel, *, is_chosen: bool) -> None:
    if model.problem or model.manifest is None:
        unusable = Text("unusable", style="red")
        table.add_row("", model.name, "", "", "", unusable, model.problem, style="dim")
    else:
        checked = f"SHA-256 {'of the hub' if model.manifest.sha256_from == 'hub' else 'computed'}"
        _add_row(table, model.path, (model.name, checked), model.manifest.source, is_chosen)


def _add_row(
    table: Table, file: Path, stored: tuple[str, str] | None, origin: str, is_chosen: bool
) -> None:
    try:
        header = read_header(file)
        check_model(header)
    except ModelFileError as error:
        unusable = Text("unusable", style="red")
        table.add_row(
            "", stored[0] if stored else "", "", "", "", unusable, str(error), style="dim"
        )
        return
    name, checked = stored or (header.name, "")
    size = f"{header.file_bytes / _MIB:.1f}"
    mark = "→" if is_chosen else ""
    context = str(header.context_length)
    table.add_row(mark, name, header.quantisation, size, context, checked, origin)


@command.command()
@click.argument("model", required=False)
@click.pass_obj
def show(config: Path | None, model: str | None) -> None:
    """Show what a file's header says: of MODEL, a name in the store or a file.

    Without MODEL, of the model that is set.
    """
    settings = load_settings(config).model
    file = settings.path or BUNDLED_MODEL
    manifest = None
    if model:
        stored = {each.name: each for each in Store(settings.store).models()}
        if model in stored:
            file, manifest = stored[model].path, stored[model].manifest
        elif (file := Path(model)).suffix != ".gguf" and not file.exists():
            Store(settings.store).find(model)  # its error lists what there is
    header = read_header(file)
    table = Table(show_header=False)
    for name, value in (facts(header) | (origin(manifest) if manifest else {})).items():
        table.add_row(name, value)
    Console(markup=False).print(table)
    check_model(header)


def origin(manifest: Manifest) -> dict[str, str]:
    """Where a model of the store came from, in words."""
    return {
        "from": manifest.source,
        "SHA-256": manifest.sha256,
        "SHA-256 from": "the hub" if manifest.sha256_from == "hub" else "computed on arrival",
        "arrived": f"{manifest.pulled_at:%Y-%m-%d %H:%M} UTC",
        "catalogue": manifest.catalogue or "-",
    }


@command.command()
@click.argument("names", nargs=-1)
@click.pass_obj
def verify(config: Path | None, names: tuple[str, ...]) -> None:
    """Compare the weights of the models NAMES with their SHA-256; without NAMES, of all.

    The exit code is 3 when one is damaged.
    """
    store = Store(load_settings(config).model.store)
    models = [store.find(name) for name in names] or store.models()
    broken = 0
    with pull.progress() as report:
        for model in models:
            what = f"checking {model.name}"
            try:
                store.verify(
                    model, deep=True, progress=lambda *done, what=what: report(what, *done)
                )
            except ModelFileError as error:
                broken += 1
                click.echo(f"{model.name}: {error}")
            else:
                click.echo(f"{model.name}: whole")
    if broken:
        raise ModelFileError(f"{broken} of {len(models)} models cannot be used")


@command.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rm(config: Path | None, name: str, yes: bool) -> None:
    """Delete the model NAME from the store, or what of it has half arrived."""
    settings = load_settings(config)
    store = Store(settings.model.store)
    is_partial = any(record.name == name for _, record in partials(store.folder))
    is_stored = any(model.name == name for model in store.models())
    path = store.weights_path(name) if is_stored or is_partial else store.find(name).path
    if is_stored and _in_use(settings, name, path):
        raise EdgedError(
            f"{name} is in use; choose another first: edged models use NAME, or another model.path",
        )
    if not yes:
        click.confirm(f"Delete {path}?" if is_stored else f"Delete the half of {name}?", abort=True)
    forget(store.folder, name)
    if is_stored:
        remove_conversion(path, settings.state_dir)
        store.remove(name)
    click.echo(f"deleted {name}")


def _in_use(settings: Settings, name: str, path: Path) -> bool:
    with contextlib.suppress(ConfigError):  # a damaged choice keeps nobody from tidying up
        selection = read_selection(settings.state_dir)
        if selection.model == name:
            return True
        if selection.serves == name and running_pid(settings.state_dir) is not None:
            return True
    return settings.model.path is not None and settings.model.path.absolute() == path.absolute()


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


command.add_command(pull.command)
command.add_command(shape)
command.add_command(use)
