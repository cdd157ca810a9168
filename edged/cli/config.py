"""``edged config``: what is set, and whether it can be."""

import json
from pathlib import Path

import click

from edged.settings import Settings, config_path, load_settings


@click.group(name="config")
def command() -> None:
    """Show or check the settings."""


@command.command()
@click.pass_obj
def show(config: Path | None) -> None:
    """Print every setting as it is in force, as TOML; secrets are hidden."""
    click.echo(as_toml(load_settings(config)))


@command.command()
@click.pass_obj
def check(config: Path | None) -> None:
    """Say whether the settings are valid; exit code 2 when not."""
    load_settings(config)
    where = config_path(config)
    read = f"{where} and the environment" if where.exists() else "the environment"
    click.echo(f"the settings are valid (read from {read})")


def as_toml(settings: Settings) -> str:
    """The settings as a TOML file would say them; what is unset stands as a comment."""
    values = settings.model_dump(mode="json")
    top = {name: value for name, value in values.items() if not isinstance(value, dict)}
    lines = [_line(name, value) for name, value in top.items()]
    for name, section in values.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(_line(key, value) for key, value in section.items())]
    return "\n".join(lines)


def _line(name: str, value: object) -> str:
    match value:
        case None:
            return f"# {name} is not set"
        case bool():
            return f"{name} = {str(value).lower()}"
        case list():
            return f"{name} = [{', '.join(_quoted(item) for item in value)}]"
        case str():
            return f"{name} = {_quoted(value)}"
    return f"{name} = {value}"


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, except that TOML wants DEL escaped, too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
