"""``edged top``: how the nodes on the broker are doing, live."""

import contextlib
import json
import signal
import time
from collections import deque
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from edged.cli.bus import KINDS, Bus, Message, Node
from edged.cli.top_facts import Sample, number, span
from edged.cli.top_figures import in_ascii
from edged.cli.top_view import HISTORY_S, render
from edged.errors import BrokerError, EdgedError
from edged.settings import MqttSettings, load_settings
from edged.transports.topics import is_name

REFRESH_S = 1.0
RETRY_S = 2.0
MOST_SAMPLES = 2000
"""A node speaks on every change, too; this bounds what one that raves can take of us."""


class Connection(Bus):
    """A bus that can tell that it is lost."""

    @property
    def is_connected(self) -> bool:
        return self._client is not None and self._client.is_connected()


class Watched:
    """What was seen of the nodes since the command began."""

    def __init__(self, root: str, only: str | None) -> None:
        self.root = root
        self.only = only
        self.nodes: dict[str, Node] = {}
        self.history: dict[str, deque[Sample]] = {}

    def take(self, message: Message, now_s: float) -> None:
        """Whatever the bytes are; an empty message is how a retained one is deleted."""
        name, _, kind = message.topic.removeprefix(f"{self.root}/").partition("/")
        if not is_name(name) or kind not in KINDS or self.only not in (None, name):
            return
        text = message.payload.decode(errors="replace")
        if kind == "status":
            self._take_status(name, text)
            return
        try:
            body = json.loads(text or "{}")
        except (ValueError, RecursionError):
            return
        if not isinstance(body, dict):
            return
        setattr(self.nodes.setdefault(name, Node(name)), kind, body)
        if kind == "state":
            self._remember(name, Sample(now_s, number(body.get("temperature_c"))))

    def _take_status(self, name: str, text: str) -> None:
        if text:
            self.nodes.setdefault(name, Node(name)).status = text
        else:
            self.nodes.pop(name, None)
            self.history.pop(name, None)

    def _remember(self, name: str, sample: Sample) -> None:
        samples = self.history.setdefault(name, deque(maxlen=MOST_SAMPLES))
        samples.append(sample)
        while samples[0].at_s < sample.at_s - HISTORY_S:
            samples.popleft()


@click.command(name="top")
@click.option("--node", help="Only this node, with all details.")
@click.option("--once", is_flag=True, help="Print what there is now, and end.")
@click.pass_obj
def command(config: Path | None, node: str | None, once: bool) -> None:
    """Watch the nodes on the broker: heat, memory, speed. Ctrl-C ends."""
    settings = load_settings(config).mqtt
    console = Console(markup=False, highlight=False, emoji=False)
    watched = Watched(settings.topic_root, node)
    # A shell starts what it runs in the background with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        _find(settings, watched)
        if once or not console.is_terminal or console.is_dumb_terminal:
            console.print(_frame(watched, console, None, height=None))
        else:
            _watch(settings, watched, console)


def _find(settings: MqttSettings, watched: Watched) -> None:
    """What is retained. Raises ``BrokerError``, and ``EdgedError`` where there is no such node."""
    with Connection(settings) as bus:
        bus.listen_to_nodes(watched.only)
        for message in bus.retained():
            watched.take(message, time.time())
    if not watched.nodes:
        what = f"node {watched.only}" if watched.only else "node"
        raise EdgedError(f"there is no {what} on this broker; start one with: edged run")


def _watch(settings: MqttSettings, watched: Watched, console: Console) -> None:
    """Until Ctrl-C; a broker that goes away is waited for."""
    lost_s: float | None = None
    why = "the connection is lost"
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def draw() -> None:
            notice = _notice(settings, lost_s, why)
            live.update(_frame(watched, console, notice, height=console.height), refresh=True)

        while True:
            try:
                with Connection(settings) as bus:
                    lost_s = None
                    bus.listen_to_nodes(watched.only)
                    _follow(bus, watched, draw)
                why = "the connection is lost"
            except BrokerError as error:
                why = str(error)
            lost_s = lost_s or time.time()
            draw()
            time.sleep(RETRY_S)


def _follow(bus: Connection, watched: Watched, draw: Callable[[], None]) -> None:
    """Until the broker is gone."""
    while bus.is_connected:
        draw()
        drawn_s = time.monotonic()
        for message in bus.messages(REFRESH_S):
            watched.take(message, time.time())
            if time.monotonic() - drawn_s >= REFRESH_S:
                break


def _notice(settings: MqttSettings, lost_s: float | None, why: str) -> Text:
    if lost_s is None:
        return Text(f"edged top, {settings.host}:{settings.port}, Ctrl-C ends", "dim")
    return Text(f"no broker for {span(time.time() - lost_s)}, trying again: {why}", "bold red")


def _frame(
    watched: Watched, console: Console, notice: Text | None, height: int | None
) -> RenderableType:
    """What to show now, in signs that the terminal has."""
    parts: list[RenderableType] = []
    if notice is not None:
        notice.no_wrap, notice.overflow = True, "ellipsis"
        parts, height = [notice], height and height - 1
    nodes = list(watched.nodes.values())
    parts.append(render(nodes, watched.history, time.time(), console.width, height))
    return _printable(Group(*parts), console)


def _printable(frame: RenderableType, console: Console) -> RenderableType:
    """Without colours where the encoding lacks the signs: better plain than an error."""
    try:
        "▁█▓▒░│◆·→…–°╭".encode(console.encoding)
    except UnicodeEncodeError:
        plain = Console(file=StringIO(), width=console.width, color_system=None)
        with plain.capture() as captured:
            plain.print(frame)
        return Text(in_ascii(captured.get().rstrip("\n")), no_wrap=True)
    return frame
