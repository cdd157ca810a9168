"""``edged run``: the daemon."""

from pathlib import Path

import click

from edged.daemon import run
from edged.settings import load_settings


@click.command(name="run")
@click.pass_obj
def command(config: Path | None) -> None:
    """Serve the model on the MQTT bus until stopped.

    With nothing set: the bundled model, on the broker at localhost:1883.
    """
    run(load_settings(config), lambda: load_settings(config))
