"""``edged ask``: a prompt over MQTT, the answer as it streams."""

import json
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edged.cli.bus import INTERRUPTION, Bus, Node, choose_node
from edged.cli.terminal import for_stdout, harmless
from edged.errors import EdgedError
from edged.settings import load_settings
from edged.transports.topics import ANONYMOUS, Topics, is_name

SILENCE_S = 45.0
"""A node gives a sign of life every 15 s; three missed ones are an answer, too."""
TERMINALS = ("done", "failed")


@click.command(name="ask")
@click.argument("prompt")
@click.option("--node", help="Which node; needed only when several are online.")
@click.option("--client", help="Our level in the topics; the MQTT user name if there is one.")
@click.option("--system", help="A system message instead of the operator's.")
@click.option("--max-tokens", type=int, help="The longest answer, in tokens.")
@click.option("--temperature", type=float, help="0 is greedy.")
@click.option("--seed", type=int, help="Repeats a sample.")
@click.option("--json", "as_json", is_flag=True, help="Print the raw messages, one a line.")
@click.pass_obj
def command(  # noqa: PLR0917 (click passes all but the first by name)
    config: Path | None,
    /,
    prompt: str,
    node: str | None,
    client: str | None,
    system: str | None,
    as_json: bool,
    **options: float | None,
) -> None:
    """Ask a node, and print its answer as it comes. Ctrl-C cancels."""
    settings = load_settings(config)
    client = client or settings.mqtt.username or ANONYMOUS
    if not is_name(client):
        raise EdgedError(f"{client!r} cannot be a level of a topic; name another with --client")
    body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if system is None:
        body["prompt"] = prompt
    else:
        body["messages"] = [
            {"role": "system", "content": system},
            {"role": "user", "content": prompt},
        ]
    with Bus(settings.mqtt) as bus:
        found = bus.nodes(node)
        # Of one that is not there, it helps to know which are.
        chosen = choose_node(found if node in (None, *found) else bus.nodes(), node)
        asking = Asking(bus, settings.mqtt.topic_root, chosen, client)
        terminal = asking.show(body, as_json=as_json)
    if terminal["type"] == "failed":
        hint = f" (retry in {s:g} s)" if (s := terminal.get("retry_after_s")) else ""
        raise EdgedError(harmless(f"{terminal['code']}: {terminal['error']}{hint}"))


class Asking:
    """One prompt to one node."""

    def __init__(self, bus: Bus, root: str, node: Node, client: str) -> None:
        self._bus = bus
        self._topics = Topics(root, node.name)
        self._client = client
        self._id = uuid.uuid4().hex

    def show(self, body: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
        """Print the stream; returns the terminal message.

        Ctrl-C asks the node to stop, wherever it finds us; a second one ends us at once.
        """
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            return self._show(self._replies(body), as_json=as_json)
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, _number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._bus.interrupt()

    def _show(self, replies: Iterator[dict[str, Any]], *, as_json: bool) -> dict[str, Any]:
        shown = ""
        for message in replies:
            if as_json:
                click.echo(for_stdout(json.dumps(message, ensure_ascii=False)))
            elif message["type"] == "delta":
                shown += message["text"]
                click.echo(for_stdout(message["text"]), nl=False)
            elif message["type"] == "waiting" and sys.stderr.isatty():
                click.echo(harmless(f"[waiting: {message['reason']}]"), err=True)
            elif message["type"] == "done":
                click.echo(for_stdout(_rest(message.get("text", ""), shown)))
                if message["finish_reason"] != "stop":
                    click.echo(f"[{message['finish_reason']}]", err=True)
            if message["type"] in TERMINALS:
                return message
        raise EdgedError(
            f"nothing was heard of {self._topics.node} for {SILENCE_S:g} s; `edged status` tells "
            "how it is doing"
        )

    def _replies(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self._bus.subscribe(self._topics.completion(self._client, self._id))
        self._bus.subscribe(self._topics.status)
        self._bus.publish(self._topics.prompt(self._client), {"id": self._id, **body})
        return self._listen()

    def _listen(self) -> Iterator[dict[str, Any]]:
        for message in self._bus.messages(SILENCE_S):
            if message is INTERRUPTION:
                self._bus.publish(self._topics.cancel(self._client), {"id": self._id})
                continue
            if message.topic == self._topics.status:
                if message.payload == b"offline":
                    raise EdgedError(f"the node {self._topics.node} went offline")
                continue
            if message.topic == self._topics.completion(self._client, self._id):
                reply: dict[str, Any] = json.loads(message.payload)
                yield reply


def _rest(text: str, shown: str) -> str:
    """What the terminal's text has beyond the deltas; all of it where one of them was lost."""
    if text.startswith(shown):
        return text[len(shown) :]
    return f"\n[a part was lost on the way; the whole answer:]\n{text}"
