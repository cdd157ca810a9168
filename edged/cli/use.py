"""``edged models use``: what is checked before, and the daemon's word for it afterwards."""

import json
import os
import signal
import time
from pathlib import Path

import click
from rich.console import Console

from edged.cli import pull
from edged.cli.bus import Bus
from edged.cli.room import daemon_of, room
from edged.engine.planning import detection_of, local, make_plan
from edged.errors import BrokerError, ConfigError, EdgedError, ModelFileError
from edged.models.fallback import Shortfall
from edged.models.gguf import check_model, read_header
from edged.models.plan import describe, mib
from edged.models.selection import Selection, read_selection, write_selection
from edged.models.store import Store
from edged.settings import Settings, load_settings
from edged.spool.running import running_pid

AUTO = "auto"
LOOK_S = 0.25
CARD_S = 5.0


@click.command()
@click.argument("name")
@click.option("--wait-s", default=900, show_default=True, help="How long to wait for the daemon.")
@click.pass_obj
def use(config: Path | None, name: str, wait_s: int) -> None:
    """Serve the model NAME of the store; "auto" leaves the choice to edged again.

    Checksum, header and memory are checked before anything is stopped. The daemon finishes what
    it is answering, and goes back to the old model if the new one fails at its first answer.
    """
    settings = load_settings(config)
    if settings.model.path is not None:
        raise ConfigError(
            f"model.path is set to {settings.model.path}, and that is what edged serves; remove "
            "the setting to choose from the store"
        )
    pid = running_pid(settings.state_dir)
    if name != AUTO:
        check(settings, name, pid)
    write_selection(settings.state_dir, Selection(None if name == AUTO else name))
    if pid is None:
        click.echo(
            f"chosen: {name}; no daemon uses {settings.state_dir} now, it is served from the "
            "next start on (edged run)"
        )
        return
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise EdgedError(
            f"the choice is written, but the daemon (process {pid}) is another user's; tell it: "
            f"sudo kill -HUP {pid}"
        ) from None
    served = _wait(settings, name, pid, wait_s)
    click.echo(_confirm(settings, served))


def check(settings: Settings, name: str, pid: int | None) -> None:
    """Refuse what could not be served. Raises ``EdgedError`` with the reason."""
    store = Store(settings.model.store)
    model = store.find(name)
    with pull.progress() as report:
        store.verify(model, deep=True, progress=lambda *done: report(f"checking {name}", *done))
    check_model(read_header(model.path))
    machine = local(settings, detection_of(settings))
    now, _ = room(machine, daemon_of(Path("/"), pid))
    planned = make_plan(settings, machine, name, now=now)
    if isinstance(planned, Shortfall):
        raise EdgedError(f"{name} is not served: {planned}")
    if planned.plan.candidate.name != name:
        raise EdgedError(
            f"{name} does not fit the {mib(now.memory_bytes)} that are available "
            f"({now.limited_by}); see: edged plan --model {name}"
        )
    for step in planned.steps:
        click.echo(f"fallback: {step}")
    click.echo(f"{name}: {describe(planned.plan)}")


def _wait(settings: Settings, name: str, pid: int, wait_s: float) -> str:
    """Until the daemon has written what it serves, or why it does not; the model's name."""
    until_s = time.monotonic() + wait_s
    with Console(stderr=True).status(f"the daemon goes over to {name} …"):
        while time.monotonic() < until_s:
            now = read_selection(settings.state_dir)
            if now.failed is not None:
                raise ModelFileError(
                    f"{now.failed} does not serve: {now.reason}; the daemon went back to "
                    f"{now.model or 'what served before'}"
                )
            if now.serves is not None and name in (AUTO, now.serves):
                return now.serves
            if now.serves is not None:
                raise EdgedError(
                    f"{settings.node} serves {now.serves} instead of {name}; edged status says why"
                )
            if running_pid(settings.state_dir) != pid:
                raise EdgedError(
                    f"the daemon (process {pid}) has ended; {name} is served from its next start on"
                )
            time.sleep(LOOK_S)
    raise EdgedError(f"{settings.node} does not serve {name} after {wait_s:g} s; see: edged status")


def _confirm(settings: Settings, served: str) -> str:
    """The daemon's card says it, too."""
    topic = f"{settings.mqtt.topic_root}/{settings.node}/card"
    try:
        with Bus(settings.mqtt) as bus:
            bus.subscribe(topic)
            for message in bus.messages(CARD_S):
                card = json.loads(message.payload)
                if card.get("model") == served:
                    return (
                        f"{settings.node} serves {served} ({card['quant']}, {card['ctx']} tokens a "
                        f"prompt, slots: {card['slots']})"
                    )
    except (BrokerError, ValueError, RecursionError, AttributeError, KeyError) as error:
        return f"{settings.node} serves {served}; its card cannot be read: {error}"
    return f"{settings.node} serves {served}; its card has not come within {CARD_S:g} s"
