"""``edged version``: this version, and which engines can run here."""

import importlib.metadata

import click

import edged


@click.command(name="version")
def command() -> None:
    """Say which version this is, and which engines are installed."""
    click.echo(f"edged {edged.__version__}")
    for package in ("llama-cpp-python", "ctransformers"):
        try:
            click.echo(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            click.echo(f"{package} not installed")
