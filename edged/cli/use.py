"""``edged models use``: what is checked before, and the daemon's word for it afterwards."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    chosen = Selection(None if name == AUTO else name)
    if read_selection(settings.state_dir) == chosen:
        click.echo(f"{name} is chosen already; see: edged status")
        return
    if pid is None:
        write_selection(settings.state_dir, chosen)
        click.echo(
            f"chosen: {name}; no daemon uses {settings.state_dir} now, it is served from the "
            "next start on (edged run)"
        )
        return
    with _bus(settings) as bus:
        write_selection(settings.state_dir, chosen)
        try:
            os.kill(pid, signal.SIGHUP)
        except PermissionError:
            raise EdgedError(
                f"the choice is written, but the daemon (process {pid}) is another user's; tell "
                f"it: sudo kill -HUP {pid}"
            ) from None
        if bus is None:
            click.echo(f"chosen: {name}; the daemon was told, but no broker has its answer")
            return
        click.echo(_confirm(settings, bus, chosen, wait_s))


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
        click.echo(f"memory is short: {step}")
    click.echo(f"{name}: {describe(planned.plan)}")


@contextlib.contextmanager
def _bus(settings: Settings) -> Iterator[Bus | None]:
    try:
        bus = Bus(settings.mqtt).__enter__()
    except BrokerError:
        yield None
        return
    try:
        yield bus
    finally:
        bus.__exit__()


def _confirm(settings: Settings, bus: Bus, chosen: Selection, wait_s: float) -> str:
    """The daemon's card says it, or its note that the model failed."""
    topic = f"{settings.mqtt.topic_root}/{settings.node}"
    for kind in ("card", "state"):
        bus.subscribe(f"{topic}/{kind}")
    said: dict[str, dict[str, Any]] = {"card": {}, "state": {}}
    # "auto" may end with the model that is there already, so its word is not taken at once.
    has_begun = chosen.model is not None
    until_s = time.monotonic() + wait_s
    with Console(stderr=True).status("waiting for the daemon …") as status:
        while time.monotonic() < until_s:
            for message in bus.messages(LOOK_S):
                with contextlib.suppress(ValueError):
                    said[message.topic.rpartition("/")[2]] = json.loads(message.payload)
                break
            now = read_selection(settings.state_dir)
            if now.failed is not None and now.model != chosen.model:
                raise ModelFileError(
                    f"{now.failed} does not serve: {now.reason}; the daemon went back to "
                    f"{now.model or 'what served before'}"
                )
            card, state = said["card"], said["state"]
            has_begun = has_begun or state.get("model_state") == "switching"
            status.update(f"{state.get('model_state', 'waiting')}: {state.get('reason') or ''}")
            model = card.get("model")
            serves = state.get("model_state") == "serving" and chosen.model in (None, model)
            if model and serves and has_begun:
                return f"{settings.node} serves {model} ({card['quant']}, {card['ctx']} tokens)"
    raise EdgedError(f"{settings.node} has not confirmed it within {wait_s:g} s; see: edged status")
