"""Which model a machine serves, and how: the best of the candidates that it really holds.

The rule: the highest rank that fits with ``MIN_CTX`` tokens a prompt and is fast enough; of it
the best quantisation; then more context, as long as a full one is fast enough; then a larger cache
for the slots to share, up to a full context for each.
Pure: it takes readings and shapes, and gives plans with their reasons.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edged.models.configuration import KV_TYPES, Configuration
from edged.models.plan import (
    MIN_CTX,
    Candidate,
    Machine,
    Plan,
    Wishes,
    changed,
    describe,
    fits,
    mib,
    missing,
    plan_for,
    uses_flash_attention,
)
from edged.models.shape import ModelShape
from edged.models.sizing import kv_type_fits

GOOD_KV_TYPES: Final = ("f16", "q8_0")
"""Those whose error does not show; q4_0 is for what fits in no other way."""
Fits = Literal["fits", "too large", "too slow", "not loadable"]


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate, and why, in words."""

    candidate: Candidate
    outcome: Fits
    why: str
    plan: Plan | None
    """Also of one that is too large or too slow: what it would have needed."""


@dataclass(frozen=True)
class Choice:
    """``plans`` are those that fit, the best first; ``verdicts`` go through all candidates."""

    plans: tuple[Plan, ...]
    verdicts: tuple[Verdict, ...]
    reason: str

    @property
    def slow(self) -> tuple[Plan, ...]:
        """Those that fit and would be slower than is asked for, the fastest first."""
        return _slow(self.verdicts)


def choose(candidates: Sequence[Candidate], machine: Machine, wishes: Wishes) -> Choice:
    """Judge all candidates; the first of ``plans`` is the choice."""
    order = sorted(candidates, key=lambda each: (-each.rank, -_weights(each)))
    verdicts = tuple(judge(each, machine, wishes) for each in order)
    fitting = [verdict.plan for verdict in verdicts if verdict.outcome == "fits" and verdict.plan]
    # One that holds the context asked for before one that was not trained for it; of the same
    # model, whole on the GPU and with a good cache before more bits without.
    plans = sorted(
        fitting,
        key=lambda plan: (
            plan.how.ctx < (wishes.ctx or 0),
            -plan.candidate.rank,
            _compromises(plan),
        ),
    )
    return Choice(tuple(plans), verdicts, _reason(plans, verdicts, machine))


def judge(candidate: Candidate, machine: Machine, wishes: Wishes) -> Verdict:
    """Whether a candidate fits the machine and is fast enough, and its best plan."""
    shape = candidate.shape
    if shape is None or candidate.problem is not None:
        return Verdict(candidate, "not loadable", candidate.problem or "its shape is unknown", None)
    if (wrong := _impossible(shape, machine, wishes)) is not None:
        return Verdict(candidate, "not loadable", wrong, None)
    base = _smallest(candidate, shape, machine, wishes)
    if not fits(base, machine):
        return Verdict(candidate, "too large", _shortage(base, machine), base)
    if base.decode_tokens_per_s < machine.min_tokens_per_s:
        why = (
            f"would decode {base.decode_tokens_per_s:.1f} tokens/s, below the "
            f"{machine.min_tokens_per_s:g} that are asked for"
        )
        return Verdict(candidate, "too slow", why, base)
    plan = _grown(base, machine, wishes)
    return Verdict(candidate, "fits", describe(plan), plan)


def _impossible(shape: ModelShape, machine: Machine, wishes: Wishes) -> str | None:
    if machine.engine == "ctransformers":
        if wishes.kv_type not in (None, "f16") or (wishes.slots or 1) > 1:
            return "ctransformers has one slot and an f16 cache; unset engine.slots and .kv_type"
        if shape.architecture != "llama":
            return _unconvertible(shape)
    if wishes.kv_type is not None and not kv_type_fits(shape, wishes.kv_type):
        return f"its heads of {shape.head_size} cannot be kept as {wishes.kv_type}"
    return None


def _unconvertible(shape: ModelShape) -> str | None:
    """Why ctransformers cannot serve it, as ``edged.models.convert`` would find."""
    if shape.architecture != "phi3" or shape.tokenizer != "llama":
        return f"ctransformers serves no {shape.architecture} with {shape.tokenizer} vocabulary"
    if shape.original_context_length is not None or shape.rotated != shape.head_size:
        return "its rope scaling has no counterpart in ctransformers"
    return None


def _smallest(candidate: Candidate, shape: ModelShape, machine: Machine, wishes: Wishes) -> Plan:
    """The least that would do: the least compromised that fits and is fast enough.

    Where none is both, the least compromised that fits, else the most compromised.
    """
    kv_types = [wishes.kv_type] if wishes.kv_type else list(KV_TYPES)
    is_light = machine.engine == "ctransformers"
    if is_light:
        kv_types = ["f16"]
    everything = shape.layers + 1
    if not machine.gpu_bytes_per_s:
        layers = [0]
    elif wishes.gpu_layers is not None:
        layers = [min(wishes.gpu_layers, everything)]
    elif machine.gpu_bytes:
        layers = list(range(everything, -1, -1))
    else:
        layers = [everything]
    ways = [
        (gpu_layers, kv_type)
        for group in (layers[:1], layers[1:])  # all of it on the GPU before any part
        for kv_type in kv_types
        for gpu_layers in group
        if kv_type_fits(shape, kv_type)
    ]
    ctx = min(wishes.ctx or MIN_CTX, shape.context_length)
    plan = fitting = None
    for gpu_layers, kv_type in ways:
        how = Configuration(
            engine=machine.engine,
            ctx=ctx,
            slots=1 if is_light else wishes.slots or machine.slots_max,
            cells=ctx,
            kv_type=kv_type,
            flash_attention=uses_flash_attention(machine.engine, kv_type, gpu_layers, machine.isa),
            load_mode="mmap" if is_light else wishes.load_mode or "none",
            ubatch_tokens=machine.ubatch_tokens,
            gpu_layers=gpu_layers,
        )
        plan = plan_for(candidate, shape, how, machine, wishes)
        if fits(plan, machine):
            if plan.decode_tokens_per_s >= machine.min_tokens_per_s:
                return plan
            fitting = fitting or plan
    assert plan is not None
    return fitting or plan


def _grown(base: Plan, machine: Machine, wishes: Wishes) -> Plan:
    """More context, then more cells for the slots to share, as far as they fit."""
    plan = base
    while wishes.ctx is None and plan.how.ctx < plan.shape.context_length:
        ctx = min(plan.how.ctx * 2, plan.shape.context_length)
        longer = changed(plan, machine, ctx=ctx, cells=ctx)
        if not fits(longer, machine) or longer.full_tokens_per_s < machine.min_tokens_per_s:
            break
        plan = longer
    most = plan.how.ctx * plan.how.slots
    while plan.how.cells < most:
        wider = changed(plan, machine, cells=min(plan.how.cells * 2, most))
        if not fits(wider, machine):
            break
        plan = wider
    return plan


def _shortage(plan: Plan, machine: Machine) -> str:
    need, have, where = missing(plan, machine)
    what = f"{plan.how.ctx} tokens a prompt and {plan.how.kv_type} cache"
    return f"needs {mib(need)} with {what}: {mib(need - have)} more than the {mib(have)} of {where}"


def _reason(plans: Sequence[Plan], verdicts: Sequence[Verdict], machine: Machine) -> str:
    slow = _slow(verdicts)
    if plans:
        best = plans[0]
        words = f"{best.title} is the best that fits and is fast enough: {describe(best)}."
    elif slow:
        best = slow[0]
        words = f"Nothing is fast enough; {best.title} comes nearest: {describe(best)}."
    else:
        return f"Nothing fits. {_misses(verdicts, machine)}"
    # The nearest miss of each better model, and of this one in more bits.
    better: dict[str, Verdict] = {}
    for verdict in verdicts:
        rank, size = verdict.candidate.rank, _weights(verdict.candidate)
        is_better = (rank, size) > (best.candidate.rank, best.shape.weights_bytes)
        if is_better and verdict.plan is not None and verdict.candidate is not best.candidate:
            better[verdict.candidate.name] = verdict
    return f"{words} {_misses(list(better.values()), machine)}".rstrip()


def _misses(verdicts: Sequence[Verdict], machine: Machine) -> str:
    """What each of them fails by, in one sentence that gives a limit once."""
    said = []
    limits = set()
    for verdict in verdicts:
        plan, words = verdict.plan, verdict.why
        if plan is not None and verdict.outcome == "too large":
            need, have, where = missing(plan, machine)
            words = f"needs {mib(need)}"
            if where not in limits:
                words += f", more than the {mib(have)} of {where}"
                limits.add(where)
        elif plan is not None and verdict.outcome == "fits":
            words = f"fits only with {describe(plan)}"
        said.append(f"{verdict.candidate.name} {verdict.candidate.quant} {words}")
    return "; ".join(said) + "." if said else ""


def _slow(verdicts: Sequence[Verdict]) -> tuple[Plan, ...]:
    slow = [verdict.plan for verdict in verdicts if verdict.outcome == "too slow" and verdict.plan]
    return tuple(sorted(slow, key=lambda plan: -plan.decode_tokens_per_s))


def _compromises(plan: Plan) -> tuple[bool, bool]:
    """Sorts the less compromised first; equal ones keep their order."""
    return (0 < plan.how.gpu_layers <= plan.shape.layers, plan.how.kv_type not in GOOD_KV_TYPES)


def _weights(candidate: Candidate) -> int:
    return 0 if candidate.shape is None else candidate.shape.weights_bytes
