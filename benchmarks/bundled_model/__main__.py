"""`python -m benchmarks.bundled_model`: a broker, a daemon, every evaluation prompt over MQTT.

Needs mosquitto and an engine. Beside the model stands what a look-up of the most similar training
prompt would answer, because a set that a look-up solves would prove nothing.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.bundled_model.asker import Asker
from benchmarks.bus import daemon
from edged.cli.local_broker import local_broker
from tools.tiny_model.__main__ import SAMPLES
from tools.tiny_model.dataset import conversations
from tools.tiny_model.look_up import NearestPrompt
from tools.tiny_model.score import MAX_TOKENS, Score, score

NODE = "benchmark"
REQUIRED_COMMANDS = 0.95
REQUIRED_OFF_TOPIC = 0.90


@click.command()
@click.option("--engine", default="auto", show_default=True, help="engine.name of the daemon.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the results here."
)
@click.option("--wrong", default=5, show_default=True, help="How many wrong answers to print.")
@click.option("--look-up/--no-look-up", default=True, help="Also score the nearest prompt.")
def main(engine: str, json_file: Path | None, wrong: int, look_up: bool) -> None:
    """Measure the bundled model through the daemon; exit code 1 below what is required."""
    console = Console()
    results: dict[str, dict[str, Score]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            local_broker(folder) as (_, port),
            daemon(folder, port, NODE, engine__name=engine) as node,
            contextlib.closing(Asker(port, NODE)) as asker,
        ):
            card = node.card
            began = time.monotonic()
            label = f"through the daemon ({card['engine']})"
            results[label] = score(lambda prompt: asker.ask(prompt, MAX_TOKENS), "daemon")
            seconds = time.monotonic() - began
    if look_up:
        nearest = NearestPrompt(conversations(SAMPLES))
        results["nearest training prompt"] = score(nearest, "look-up")
    console.print(_table(results))
    commands, off_topic = results[label]["commands"], results[label]["off-topic"]
    for prompt, said in [*commands.wrong, *off_topic.wrong][:wrong]:
        console.print(f"wrong: {prompt!r} -> {said!r}", markup=False)
    console.print(f"{commands.asked + off_topic.asked} prompts in {seconds:.0f} s")
    if json_file:
        json_file.write_text(json.dumps(_as_json(results, card, seconds), indent=2) + "\n")
    sys.exit(commands.share < REQUIRED_COMMANDS or off_topic.share < REQUIRED_OFF_TOPIC)


def _table(results: dict[str, dict[str, Score]]) -> Table:
    table = Table(
        title="The bundled model",
        caption="A command is right when device, room and action are; an off-topic prompt, "
        "when the answer says what the model is and can do.",
    )
    table.add_column("answers from")
    table.add_column("held-out commands", justify="right")
    table.add_column("fresh commands", justify="right")
    table.add_column("off-topic", justify="right")
    for label, scores in results.items():
        table.add_row(
            label,
            *(f"{s.right} of {s.asked} ({100 * s.share:.1f} %)" for s in scores.values()),
        )
    required = (REQUIRED_COMMANDS, REQUIRED_COMMANDS, REQUIRED_OFF_TOPIC)
    table.add_row("required", *(f"{100 * share:.0f} %" for share in required))
    return table


def _as_json(
    results: dict[str, dict[str, Score]], card: dict[str, Any], seconds: float
) -> dict[str, Any]:
    return {
        "card": card,
        "seconds": round(seconds, 1),
        "results": {
            label: {
                name: {"right": s.right, "asked": s.asked, "share": s.share, "wrong": s.wrong}
                for name, s in scores.items()
            }
            for label, scores in results.items()
        },
    }


if __name__ == "__main__":
    main()
