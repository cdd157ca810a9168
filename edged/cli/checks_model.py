"""Checks of ``edged doctor``: what would be served now, and whether the memory holds it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edged.cli.room import Daemon, room
from edged.engine.planning import detection_of, local, make_plan
from edged.errors import ModelFileError
from edged.hardware.detect import Detection
from edged.hardware.health import Finding, failure, ok, warning
from edged.models.bundled import BUNDLED_MODEL
from edged.models.fallback import Shortfall
from edged.models.gguf import check_model, read_header
from edged.models.plan import Plan, describe, mib
from edged.models.selection import read_selection
from edged.models.store import Store, StoredModel
from edged.settings import Settings

_BANDWIDTH_CACHE: Final = "bandwidth.json"


def damaged(settings: Settings) -> Iterator[Finding]:
    """What of the store cannot be served, and what was chosen in vain."""
    for model in Store(settings.model.store).models():
        if (problem := _problem(model)) is not None:
            found, _, remedy = problem.partition("; ")
            yield warning(f"{model.name}: {found}", remedy or None)
    selection = read_selection(settings.state_dir)
    if selection.failed is not None:
        yield warning(
            f"{selection.failed} was chosen last, and does not serve: {selection.reason}",
            "edged models list shows what else there is, edged models use NAME chooses it",
        )


def _problem(model: StoredModel) -> str | None:
    if model.problem is None and model.manifest is not None:
        try:
            check_model(read_header(model.path))
        except ModelFileError as error:
            again = f"edged models pull {model.manifest.source} --name {model.name}"
            return f"{error}; fetch another, or this one again: {again}"
    return model.problem


def served(settings: Settings, daemon: Daemon) -> Finding:
    """Plan as the daemon would when it starts now. Raises ``EdgedError`` where it would."""
    machine = local(settings, _detection(settings))
    now, said = room(machine, daemon)
    chosen = read_selection(settings.state_dir).model
    planned = make_plan(settings, machine, chosen, now=now)
    if isinstance(planned, Shortfall):
        return failure(
            f"{planned}{said}",
            "stop what else needs memory, set a smaller engine.ctx, or choose a smaller model: "
            "edged plan shows what fits",
        )
    return _judged(planned.plan, planned.steps, f"{mib(now.memory_bytes)} are available{said}")


def _judged(plan: Plan, steps: tuple[str, ...], there: str) -> Finding:
    text = f"{plan.title} fits: {describe(plan)}; {there}"
    if steps:
        return warning(
            f"{text}; for that, the plan had to give: {'; '.join(steps)}",
            "stop what else needs memory; edged plan shows what this machine would hold",
        )
    if plan.candidate.path == BUNDLED_MODEL:
        return ok(
            f"{text}; it is the small one that comes with edged, the store being empty",
            "edged plan shows what this machine holds, edged models pull NAME fetches it",
        )
    return ok(text)


def _detection(settings: Settings) -> Detection:
    """As the daemon does it, but nothing is written to its state folder: root may look, too."""
    with tempfile.TemporaryDirectory(prefix="edged-doctor-") as scratch:
        known = settings.state_dir / _BANDWIDTH_CACHE
        if os.access(known, os.R_OK):
            shutil.copy(known, scratch)
        return detection_of(settings.model_copy(update={"state_dir": Path(scratch)}))
