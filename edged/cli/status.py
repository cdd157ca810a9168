"""``edged status``: the nodes on the broker, readable."""

import json
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from edged.cli.bus import Bus, Node
from edged.cli.terminal import for_stdout
from edged.cli.top_facts import words
from edged.errors import EdgedError
from edged.settings import load_settings


@click.command(name="status")
@click.option("--node", help="Only this node.")
@click.option("--json", "as_json", is_flag=True, help="Cards and states as they are.")
@click.pass_obj
def command(config: Path | None, node: str | None, as_json: bool) -> None:
    """Show what the nodes on the broker are and how they are doing."""
    settings = load_settings(config)
    with Bus(settings.mqtt) as bus:
        nodes = [found for found in bus.nodes(node).values() if node in (None, found.name)]
    if not nodes:
        what = f"node {node}" if node else "node"
        raise EdgedError(f"there is no {what} on this broker; start one with: edged run")
    if as_json:
        bodies = [vars(found) for found in nodes]
        click.echo(for_stdout(json.dumps(bodies, ensure_ascii=False, indent=2)))
        return
    Console(markup=False).print(table(nodes))  # what nodes say is no markup


def table(nodes: list[Node]) -> Table:
    """One column a node, one row a fact."""
    shown = Table()
    shown.add_column("")
    for node in nodes:
        shown.add_column(node.name, style="" if node.is_online else "dim")
    facts = [_facts(node) for node in nodes]
    for row in facts[0]:
        shown.add_row(row, *(fact[row] for fact in facts))
    return shown


def _facts(node: Node) -> dict[str, str]:
    """What it is, and how it is doing; of a node that is away, only what it is."""
    card, state = node.card, node.state if node.is_online else {}
    memory, faults = state.get("memory"), state.get("faults")
    memory = memory if isinstance(memory, dict) else {}
    faults = faults if isinstance(faults, list) else []
    return {
        "status": words(node.status) or "unknown",
        "device": _text(card.get("device")),
        "model": f"{_text(card.get('model'))} ({_text(card.get('quant'))})",
        "engine": _text(card.get("engine")),
        "context": f"{_text(card.get('ctx'))} tokens, slots: {_text(card.get('slots'))}",
        "speed": f"{_text(card.get('decode_tokens_per_s'))} tokens/s",
        "version": _text(card.get("version")),
        "model state": _text(state.get("model_state")),
        "level": _level(state),
        "now": (
            f"{_text(state.get('active'))} answered, {_text(state.get('queued'))} waiting, "
            f"{_text(state.get('tokens_per_s'))} tokens/s"
        ),
        "memory": (
            f"{_size(memory.get('worker_bytes'))} worker, "
            f"{_size(memory.get('available_bytes'))} available"
        ),
        "faults": ", ".join(map(_text, faults)) or ("none" if state else "-"),
    }


def _level(state: dict[str, object]) -> str:
    level, since = state.get("level"), state.get("since")
    if not isinstance(since, int | float):
        return _text(level)
    reason = f", {_text(state['reason'])}" if state.get("reason") else ""
    return f"{_text(level)} for {_span(time.time() - since)}{reason}"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _text(value: object) -> str:
    return "-" if value is None else words(str(value))  # what nodes say steers no terminal


def _size(value: object) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
