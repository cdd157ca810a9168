"""The ``edged`` command: what a user sees of every error is one line and an exit code."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

import edged
from edged.errors import EdgedError

# name → module; imported when used, so that the daemon carries none of the others' libraries.
_COMMANDS = {
    "run": "edged.cli.run",
    "ask": "edged.cli.ask",
    "status": "edged.cli.status",
    "top": "edged.cli.top",
    "demo": "edged.cli.demo",
    "plan": "edged.cli.plan",
    "bench": "edged.cli.bench",
    "simulate": "edged.cli.simulate",
    "models": "edged.cli.models",
    "profiles": "edged.cli.profiles",
    "config": "edged.cli.config",
    "broker": "edged.cli.broker",
    "doctor": "edged.cli.doctor",
    "version": "edged.cli.version",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file instead of /etc/edged/edged.toml.",
)
@click.version_option(edged.__version__, prog_name="edged")
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """A private language-model appliance on your MQTT bus."""
    context.obj = config


def main() -> Any:
    """Run the command; known errors are one line on stderr."""
    try:
        return cli()
    except EdgedError as error:
        if os.environ.get("EDGED_DEBUG") == "1":
            raise
        click.echo(f"edged: {error}", err=True)
        sys.exit(error.exit_code)
