"""``edged demo``: broker, daemon, model and one prompt, and nothing left behind."""

import contextlib
import signal
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from edged.cli.ask import Asking
from edged.cli.bus import Bus
from edged.cli.local_broker import local_broker
from edged.cli.local_daemon import local_daemon, wait_until_serving
from edged.errors import EdgedError
from edged.settings import MqttSettings
from edged.transports.topics import ANONYMOUS

DEFAULT_PROMPT = "What can you do?"
NODE = "demo"


@click.command(name="demo")
@click.option("--prompt", default=DEFAULT_PROMPT, show_default=True, help="What to ask.")
@click.option("--next-command", hidden=True, help="How whoever called us is called.")
def command(prompt: str, next_command: str | None) -> None:
    """Show the whole way of one prompt on this machine, then clean up."""
    for ending in (signal.SIGTERM, signal.SIGHUP):  # nothing is left behind then, either
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    console = Console(highlight=False)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-demo-")))
        with console.status("starting a broker …"):
            name, port = stack.enter_context(local_broker(folder))
        note = " (no Mosquitto here, so MQTT 3.1.1 only)" if name == "amqtt" else ""
        console.print(f"[green]✓[/] broker    {name} on localhost:{port}{note}")
        settings = MqttSettings(
            host="127.0.0.1", port=port, protocol="3.1.1" if name == "amqtt" else "5"
        )
        with console.status("starting the daemon and loading the model …"):
            daemon = stack.enter_context(local_daemon(NODE, folder, settings))
            bus = stack.enter_context(Bus(settings))
            node = wait_until_serving(NODE, bus, daemon, folder)
        card = node.card
        console.print(f"[green]✓[/] daemon    edged {card['version']}, node {NODE}")
        console.print(
            f"[green]✓[/] model     {card['model']} ({card['quant']}) on {card['engine']}"
        )
        topic = f"{settings.topic_root}/{NODE}/prompt"
        console.print(f"[green]✓[/] prompt    to {topic}:\n")
        console.print(f"  [bold]{_literal(prompt)}[/]\n")
        asking = Asking(bus, settings.topic_root, node, ANONYMOUS)
        done = asking.show({"prompt": prompt}, as_json=False)
        if done["type"] == "failed":
            raise EdgedError(f"{done['code']}: {done['error']}")
        usage, timings = done["usage"], done["timings"]
        speed = timings["decode_tokens_per_s"]
        console.print(
            f"\n[dim]{usage['completion_tokens']} tokens, the first after "
            f"{timings['first_token_ms']:.0f} ms"
            + (f", then {speed:.0f} tokens/s" if speed else "")
            + "; broker and daemon are stopped again.[/]",
            soft_wrap=True,
        )
    again = next_command or "edged demo --prompt "
    program = ".venv/bin/edged" if next_command else "edged"
    console.print(
        f'\nAsk something else:   {again}"turn off the bedroom lamp"\n'
        f"Keep a node running:  {program} run        (needs a broker on localhost:1883)\n"
        f'… and ask it:         {program} ask "is the garage door closed?"',
        soft_wrap=True,
    )


def _literal(text: str) -> str:
    """Text that rich must not read as its markup."""
    return text.replace("[", r"\[")
