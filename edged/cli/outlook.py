"""What ``edged plan`` found out, and the same for programs (docs/plan.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged.hardware.schema import Profile
from edged.models.choice import Choice, Verdict
from edged.models.fallback import Admitted, Shortfall
from edged.models.plan import Candidate, Machine, Plan, fits


@dataclass(frozen=True)
class Outlook:
    """The judgement of every candidate on one machine; what begins at ``now`` is of this node."""

    profile: Profile
    machine: Machine
    choice: Choice
    now: Machine | None = None
    """``None`` for a board that is not here."""
    admitted: Admitted | Shortfall | None = None
    entries: Mapping[str, str | None] = field(default_factory=dict)
    """Every name in the store → its name in the catalogue."""
    selected: str | None = None
    """The model that was chosen with ``edged models use``."""
    model_path: Path | None = None
    """The setting ``model.path``, which goes before."""
    asked: Mapping[str, int | str] = field(default_factory=dict)
    """What was asked for on the command line, by the setting's name in ``[engine]``."""

    @property
    def chosen(self) -> Plan | None:
        """The best; where all that fit are slower than asked for, the fastest."""
        plans = self.choice.plans or self.choice.slow
        return plans[0] if plans else None

    @property
    def fits_now(self) -> bool:
        """Whether the choice fits as it is into what is available at this moment."""
        return self.now is None or self.chosen is None or fits(self.chosen, self.now)

    def entry(self, candidate: Candidate) -> str | None:
        """The catalogue's name of a candidate, ``None`` where it has none."""
        if candidate.path is None:
            return candidate.name
        return self.entries.get(candidate.name)

    def steps(self) -> list[str]:
        """What to do to have the choice served, a line each."""
        plan = self.chosen
        if plan is None:
            return []
        steps: list[str] = []
        where = "" if self.now is not None else "on that board: "
        name, path = plan.candidate.name, plan.candidate.path
        if path is None:
            quant = plan.candidate.quant.lower()
            steps.append(f"{where}edged models pull {name}:{quant}")
            name = f"{name}-{quant}"
        elif name not in self.entries:
            name = path.stem
            steps.append(f"{where}edged models pull file:{path.absolute()}")
        if self.now is not None and self.model_path is not None:
            steps.append(f"unset model.path, which is {self.model_path} and goes before the store")
        if not self._is_served_anyway(plan.candidate):
            steps.append(f"{where}edged models use {name}")
        if self.asked:
            values = ", ".join(f"{key} = {_toml(value)}" for key, value in self.asked.items())
            steps.append(f"{where}in the settings, under [engine]: {values}")
        return steps

    def _is_served_anyway(self, candidate: Candidate) -> bool:
        """Of the store, edged takes what was selected; else the best."""
        return (
            self.now is not None
            and candidate.name in self.entries
            and self.selected in (None, candidate.name)
        )


def as_json(outlook: Outlook) -> dict[str, Any]:
    """The answer for programs; sizes in bytes, speeds in tokens/s."""
    chosen = outlook.chosen
    return {
        "choice": None
        if chosen is None
        else {**_plan(outlook, chosen), "reason": outlook.choice.reason},
        "reason": outlook.choice.reason,
        "machine": _machine(outlook),
        "now": _now(outlook),
        "next": outlook.steps(),
        "candidates": [_candidate(outlook, verdict) for verdict in outlook.choice.verdicts],
    }


def _machine(outlook: Outlook) -> dict[str, Any]:
    machine, memory = outlook.machine, outlook.profile.memory
    now = outlook.now
    return {
        "profile": outlook.profile.name,
        "description": outlook.profile.description,
        "here": now is not None,
        "engine": machine.engine,
        "memory_bytes": machine.memory_bytes,
        "limited_by": machine.limited_by,
        "total_bytes": memory.total_bytes,
        "kept_for_system_bytes": memory.kept_for_system_bytes,
        "unified": memory.unified,
        "gpu_bytes": machine.gpu_bytes,
        "decode_bytes_per_s": machine.gpu_bytes_per_s or machine.bytes_per_s,
        "min_tokens_per_s": machine.min_tokens_per_s,
        "available_bytes": None if now is None else now.memory_bytes,
        "available_limited_by": None if now is None else now.limited_by,
        "available_gpu_bytes": None if now is None else now.gpu_bytes,
    }


def _now(outlook: Outlook) -> dict[str, Any] | None:
    admitted = outlook.admitted
    if admitted is None:
        return None
    if isinstance(admitted, Shortfall):
        return {
            "fits": False,
            "steps": [],
            "plan": None,
            "needed_bytes": admitted.needed_bytes,
            "available_bytes": admitted.available_bytes,
        }
    return {
        "fits": outlook.fits_now,
        "steps": list(admitted.steps),
        "plan": _plan(outlook, admitted.plan),
        "needed_bytes": None,
        "available_bytes": None,
    }


def _candidate(outlook: Outlook, verdict: Verdict) -> dict[str, Any]:
    candidate = verdict.candidate
    return {
        "model": candidate.name,
        "quant": candidate.quant,
        "catalogue": outlook.entry(candidate),
        "file": None if candidate.path is None else str(candidate.path),
        "rank": candidate.rank,
        "outcome": verdict.outcome,
        "why": verdict.why,
        "plan": None if verdict.plan is None else _plan(outlook, verdict.plan),
    }


def _plan(outlook: Outlook, plan: Plan) -> dict[str, Any]:
    how, both = plan.how, plan.memory.both
    return {
        "model": plan.candidate.name,
        "quant": plan.candidate.quant,
        "catalogue": outlook.entry(plan.candidate),
        "file": None if plan.candidate.path is None else str(plan.candidate.path),
        "ctx": how.ctx,
        "slots": how.slots,
        "cells": how.cells,
        "kv_total_tokens": how.cells,
        "kv_type": how.kv_type,
        "flash_attention": how.flash_attention,
        "threads": {"prefill": plan.threads_prefill, "decode": plan.threads_decode},
        "gpu_layers": how.gpu_layers,
        "load_mode": how.load_mode,
        "rope": plan.rope,
        "ubatch_tokens": how.ubatch_tokens,
        "memory": {
            "weights_bytes": both.weights_bytes,
            "kv_bytes": both.kv_bytes,
            "compute_bytes": both.compute_bytes,
            "overhead_bytes": both.overhead_bytes,
            "total_bytes": both.total_bytes,
            "host_bytes": plan.memory.host.total_bytes,
            "gpu_bytes": plan.memory.gpu.total_bytes,
        },
        "predicted": {
            "decode_tokens_per_s": round(plan.decode_tokens_per_s, 2),
            "full_context_tokens_per_s": round(plan.full_tokens_per_s, 2),
        },
    }


def _toml(value: int | str) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
