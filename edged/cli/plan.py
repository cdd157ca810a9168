"""``edged plan``: which model this machine, or one that you do not have, holds, and how."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import click

from edged.cli.outlook import Outlook, as_json
from edged.cli.plan_dropin import dropin
from edged.cli.plan_table import report
from edged.cli.room import daemon_of, room
from edged.engine.planning import (
    catalogue_candidates,
    detection_of,
    file_candidate,
    local,
    nominal,
    right_now,
    stored_candidates,
    wishes_of,
)
from edged.errors import ConfigError, EdgedError, ModelFileError, OutOfMemory
from edged.hardware.memory import available
from edged.hardware.profile import read_profile
from edged.models.choice import choose
from edged.models.configuration import KvType
from edged.models.fallback import Shortfall, admit
from edged.models.plan import Candidate, Wishes
from edged.models.selection import read_selection
from edged.models.store import Store
from edged.settings import Settings, load_settings
from edged.spool.running import running_pid

_CTX: Final = click.IntRange(64, 1_048_576)
_SLOTS: Final = click.IntRange(1, 64)


@click.command(name="plan")
@click.option("--profile", metavar="P", help="Plan for this board instead of this machine.")
@click.option("--model", metavar="NAME", help="Only this one: of the catalogue or of the store.")
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False), help="Only this GGUF file."
)
@click.option("--ctx", type=_CTX, help="Tokens a prompt and its answer may fill.")
@click.option("--slots", type=_SLOTS, help="Prompts answered at the same time.")
@click.option("--kv", type=click.Choice(get_args(KvType)), help="How keys and values are kept.")
@click.option("--json", "for_programs", is_flag=True, help="For programs: docs/plan.md.")
@click.option(
    "--systemd-dropin", "for_systemd", is_flag=True, help="Only MemoryMax=, for the service."
)
@click.pass_obj
def command(  # noqa: PLR0917 (click passes them by name)
    config: Path | None,
    profile: str | None,
    model: str | None,
    file: Path | None,
    ctx: int | None,
    slots: int | None,
    kv: KvType | None,
    for_programs: bool,
    for_systemd: bool,
) -> None:
    """Show which models fit, how much memory each needs and of what, and which one is best.

    NAME may be followed by a quantisation, as in phi-4:q4_0. Nothing is fetched or changed.
    Without --profile the settings of this node count; the first time on a machine without a
    profile of its own measures its memory: two seconds.
    """
    if model is not None and file is not None:
        raise ConfigError("give --model or --file, not both")
    settings = load_settings(config)
    if settings.engine.name == "echo":  # it has no weights to plan for
        engine = settings.engine.model_copy(update={"name": "auto"})
        settings = settings.model_copy(update={"engine": engine})
    given: dict[str, int | str | None] = {"ctx": ctx, "slots": slots, "kv_type": kv}
    asked = {name: value for name, value in given.items() if value is not None}
    if profile is None:
        outlook = _here(settings, model, file, asked)
    else:
        outlook = _elsewhere(settings, profile, model, file, asked)
    if for_systemd:
        click.echo(dropin(outlook), nl=False)
        return
    if for_programs:
        click.echo(json.dumps(as_json(outlook), indent=2, ensure_ascii=False))
    else:
        report(outlook)
    sys.stdout.flush()
    if outlook.chosen is None:
        raise _nothing(outlook)


def _here(
    settings: Settings, model: str | None, file: Path | None, asked: dict[str, int | str]
) -> Outlook:
    detection = detection_of(settings, measured=True)
    reading = available()
    machine = local(settings, detection)
    wishes = replace(wishes_of(settings), **asked)  # type: ignore[arg-type]
    choice = choose(_candidates(settings, model, file), machine, wishes)
    daemon = daemon_of(Path("/"), running_pid(settings.state_dir))
    now = room(machine, daemon)[0] if daemon.workers else right_now(machine, reading)
    plans = choice.plans or choice.slow
    return Outlook(
        profile=detection.profile,
        machine=machine,
        choice=choice,
        now=now,
        admitted=admit(plans, now) if plans else None,
        entries=_entries(settings),
        selected=read_selection(settings.state_dir).model,
        model_path=settings.model.path,
        asked=asked,
    )


def _elsewhere(
    settings: Settings,
    profile_name: str,
    model: str | None,
    file: Path | None,
    asked: dict[str, int | str],
) -> Outlook:
    profile = read_profile(profile_name)
    machine = nominal(profile)
    candidates = _candidates(settings, model, file)
    # Of what this node has set, nothing counts for another machine.
    choice = choose(candidates, machine, Wishes(**asked))  # type: ignore[arg-type]
    return Outlook(profile, machine, choice, entries=_entries(settings), asked=asked)


def _candidates(settings: Settings, model: str | None, file: Path | None) -> list[Candidate]:
    """What is to be judged: a file, what ``model`` names, or all that is known."""
    if file is not None:
        return [file_candidate(file)]
    stored = stored_candidates(settings)
    entries = _entries(settings)
    here = {(entries.get(each.name), each.quant) for each in stored}
    catalogue = [each for each in catalogue_candidates() if (each.name, each.quant) not in here]
    known = [*stored, *catalogue]
    if model is None:
        return known
    if named := [each for each in stored if each.name == model]:
        return named
    name, _, quant = model.lower().partition(":")
    of_name = [each for each in known if (entries.get(each.name) or each.name) == name]
    found = [each for each in of_name if not quant or each.quant.lower() in (quant, "-")]
    if found:
        return found
    if of_name:
        there = ", ".join(each.quant.lower() for each in of_name)
        raise ConfigError(f"{name} is not known in {quant}; there are: {there}")
    names = dict.fromkeys(each.name for each in known)
    raise ConfigError(
        f"neither catalogue nor store has a model {model!r}; known are: {', '.join(names)}; "
        "a file is named with --file"
    )


def _entries(settings: Settings) -> dict[str, str | None]:
    """Every name in the store, and what the catalogue calls it."""
    return {
        model.name: model.manifest.catalogue
        for model in Store(settings.model.store).models()
        if model.manifest is not None
    }


def _nothing(outlook: Outlook) -> EdgedError:
    """What to raise where no model fits: with the numbers of the one that needs least."""
    tried = [verdict.plan for verdict in outlook.choice.verdicts if verdict.plan is not None]
    if not tried:
        first = outlook.choice.verdicts[0]
        return ModelFileError(f"{first.candidate.name} cannot be served: {first.why}")
    least = admit(tried, outlook.machine)
    if not isinstance(least, Shortfall):
        return OutOfMemory(
            f"nothing fits as asked; with less it would: {least.plan.title} with "
            f"{'; '.join(least.steps)}"
        )
    details = {"needed_bytes": least.needed_bytes, "available_bytes": least.available_bytes}
    return OutOfMemory(str(least), details=details)
