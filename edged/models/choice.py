"""Which model a machine serves, and how: the best of the candidates that it really holds.

The rule: the highest rank that fits with ``MIN_CTX`` tokens a slot and is fast enough; of it
the best quantisation; then more context, as long as a full one is fast enough; then more slots.
Pure: it takes readings and shapes, and gives plans with their reasons.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from edged.models.shape import ModelShape
from edged.models.sizing import (
    KV_TYPES,
    Configuration,
    KvType,
    LoadMode,
    Memory,
    decode_tokens_per_s,
    kv_type_fits,
    memory,
    rope,
)

MIN_CTX: Final = 4096
"""Tokens a slot that a chosen model must hold, unless it was trained for fewer."""
FALLBACK_CTX: Final = 1024
"""As short as a context is made when memory is missing."""
SHORT_TOKENS: Final = 256
"""How far a context is filled where a speed is given without saying so."""
THREAD_WORTH_BYTES: Final = 32 * 2**20
"""Threads meet after each of a step's small products: with fewer weights each they wait longer
for one another than they compute."""
GOOD_KV_TYPES: Final = ("f16", "q8_0")
"""Those whose error does not show; q4_0 is for what fits in no other way."""

Fits = Literal["fits", "too large", "too slow", "not loadable"]


@dataclass(frozen=True)
class Machine:
    """What may be used of a machine, and how fast it is; built from its profile and readings."""

    memory_bytes: int
    limited_by: str
    """What sets that limit, in words."""
    isa: tuple[str, ...]
    bytes_per_s: float
    """Weights read in decoding, of the memory that the processor computes from."""
    threads_prefill: int
    threads_decode: int
    ubatch_tokens: int
    slots_max: int
    min_tokens_per_s: float
    gpu_bytes: int = 0
    """Of a GPU with a memory of its own."""
    gpu_bytes_per_s: float = 0.0
    """0 without a GPU; one that shares the machine's memory has this and no ``gpu_bytes``."""
    engine: str = "llama_cpp"

    @property
    def is_unified(self) -> bool:
        return self.gpu_bytes_per_s > 0 and self.gpu_bytes == 0


@dataclass(frozen=True)
class Wishes:
    """What the operator has set; ``None`` leaves it to the choice."""

    ctx: int | None = None
    slots: int | None = None
    kv_type: KvType | None = None
    load_mode: LoadMode | None = None
    gpu_layers: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A model that could be served; ``problem`` says why it cannot be loaded at all."""

    name: str
    quant: str
    rank: int
    shape: ModelShape | None
    path: Path | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Plan:
    """One way to serve one model on one machine."""

    candidate: Candidate
    shape: ModelShape
    how: Configuration
    memory: Memory
    threads_decode: int
    threads_prefill: int
    decode_tokens_per_s: float
    """With a short context."""
    full_tokens_per_s: float
    """With a full one."""

    @property
    def rope(self) -> str:
        return rope(self.shape, self.how.ctx)

    @property
    def title(self) -> str:
        return f"{self.candidate.name} {self.candidate.quant}"


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


@dataclass(frozen=True)
class Admitted:
    """A plan that fits what is available now, and what had to give for it, in words."""

    plan: Plan
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Shortfall:
    """Nothing fits: what the smallest way needs, and what there is."""

    title: str
    needed_bytes: int
    available_bytes: int
    limited_by: str

    def __str__(self) -> str:
        return (
            f"not enough memory: {self.title} needs {mib(self.needed_bytes)} at the least, "
            f"{mib(self.available_bytes)} are available ({self.limited_by})"
        )


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


def admit(plans: Sequence[Plan], machine: Machine) -> Admitted | Shortfall:
    """Hold plans, the best first, against what ``machine`` has now; make them smaller if need be.

    In this order: smaller cache elements, fewer slots, shorter context, another model.
    """
    first = plans[0]
    least: Plan | None = None
    # A context shorter than what was promised only where no other model keeps the promise.
    for shortest in (None, FALLBACK_CTX):
        for plan in plans:
            steps = [] if plan is first else [f"{plan.title} instead of {first.title}"]
            for smaller, step in _ladder(plan, machine, shortest or min(MIN_CTX, plan.how.ctx)):
                if step is not None:
                    steps.append(step)
                if fits(smaller, machine):
                    return Admitted(smaller, tuple(steps))
                if least is None or needed(smaller, machine) < needed(least, machine):
                    least = smaller
    assert least is not None
    return Shortfall(least.title, *_missing(least, machine))


def fits(plan: Plan, machine: Machine) -> bool:
    """The inequality: what is needed is at most what is there, in each kind of memory."""
    if needed(plan, machine) > machine.memory_bytes:
        return False
    return machine.is_unified or plan.memory.gpu.total_bytes <= machine.gpu_bytes


def needed(plan: Plan, machine: Machine) -> int:
    """Bytes of the machine's own memory; a GPU that shares it counts in full."""
    parts = plan.memory.both if machine.is_unified else plan.memory.host
    return parts.total_bytes


def describe(plan: Plan) -> str:
    """The way to serve it, in a line."""
    how = plan.how
    slots = "1 slot" if how.slots == 1 else f"{how.slots} slots"
    where = ""
    if how.gpu_layers > plan.shape.layers:
        where = ", all layers on the GPU"
    elif how.gpu_layers:
        where = f", {how.gpu_layers} of {plan.shape.layers} layers on the GPU"
    return (
        f"{how.ctx} tokens in {slots}, {how.kv_type} cache{where}, "
        f"{mib(plan.memory.both.total_bytes)}, {plan.decode_tokens_per_s:.1f} tokens/s"
    )


def mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _impossible(shape: ModelShape, machine: Machine, wishes: Wishes) -> str | None:
    if machine.engine == "ctransformers" and shape.architecture != "llama":
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
    if machine.engine == "ctransformers":
        kv_types = ["f16"]
    everything = shape.layers + 1
    if wishes.gpu_layers is not None:
        layers = [min(wishes.gpu_layers, everything)]
    elif machine.gpu_bytes:
        layers = list(range(everything, -1, -1))
    else:
        layers = [everything if machine.is_unified else 0]
    ways = [
        (gpu_layers, kv_type)
        for group in (layers[:1], layers[1:])  # all of it on the GPU before any part
        for kv_type in kv_types
        for gpu_layers in group
        if kv_type_fits(shape, kv_type)
    ]
    plan = fitting = None
    for gpu_layers, kv_type in ways:
        how = Configuration(
            engine=machine.engine,
            ctx=min(wishes.ctx or MIN_CTX, shape.context_length),
            slots=wishes.slots or 1,
            kv_type=kv_type,
            load_mode=wishes.load_mode or "none",
            ubatch_tokens=machine.ubatch_tokens,
            gpu_layers=gpu_layers,
        )
        plan = _plan(candidate, shape, how, machine, wishes)
        if fits(plan, machine):
            if plan.decode_tokens_per_s >= machine.min_tokens_per_s:
                return plan
            fitting = fitting or plan
    assert plan is not None
    return fitting or plan


def _grown(base: Plan, machine: Machine, wishes: Wishes) -> Plan:
    """More context, then more slots, as far as they fit."""
    plan = base
    while wishes.ctx is None and plan.how.ctx < plan.shape.context_length:
        ctx = min(plan.how.ctx * 2, plan.shape.context_length)
        longer = _changed(plan, machine, ctx=ctx)
        if not fits(longer, machine) or longer.full_tokens_per_s < machine.min_tokens_per_s:
            break
        plan = longer
    while wishes.slots is None and plan.how.slots * 2 <= machine.slots_max:
        wider = _changed(plan, machine, slots=plan.how.slots * 2)
        if machine.engine == "ctransformers" or not fits(wider, machine):
            break
        plan = wider
    return plan


def _ladder(plan: Plan, machine: Machine, shortest_ctx: int) -> Iterator[tuple[Plan, str | None]]:
    """The plan, then ever smaller ones, each with what has given."""
    yield plan, None
    if plan.how.engine != "ctransformers":
        for kv_type in KV_TYPES[KV_TYPES.index(plan.how.kv_type) + 1 :]:
            if kv_type_fits(plan.shape, kv_type):
                step = f"{kv_type} cache instead of {plan.how.kv_type}"
                plan = _changed(plan, machine, kv_type=kv_type)
                yield plan, step
    while plan.how.slots > 1:
        slots = plan.how.slots // 2
        step = f"{slots} slot{'s' * (slots > 1)} instead of {plan.how.slots}"
        plan = _changed(plan, machine, slots=slots)
        yield plan, step
    while plan.how.ctx > shortest_ctx:
        ctx = max(plan.how.ctx // 2, shortest_ctx)
        step = f"{ctx} tokens a slot instead of {plan.how.ctx}"
        plan = _changed(plan, machine, ctx=ctx)
        yield plan, step
    # Where the GPU's own memory is what is missing.
    while machine.gpu_bytes and plan.how.gpu_layers:
        gpu_layers = plan.how.gpu_layers - 1
        step = f"{gpu_layers} layers on the GPU instead of {plan.how.gpu_layers}"
        plan = _changed(plan, machine, gpu_layers=gpu_layers)
        yield plan, step


def _changed(plan: Plan, machine: Machine, **changes: object) -> Plan:
    how = replace(plan.how, **changes)  # type: ignore[arg-type]
    changed = _plan(plan.candidate, plan.shape, how, machine, Wishes())
    return replace(
        changed, threads_decode=plan.threads_decode, threads_prefill=plan.threads_prefill
    )


def _plan(
    candidate: Candidate, shape: ModelShape, how: Configuration, machine: Machine, wishes: Wishes
) -> Plan:
    on_gpu = min(how.gpu_layers / (shape.layers + 1), 1.0)
    seconds_a_byte = (1 - on_gpu) / machine.bytes_per_s
    if on_gpu:
        seconds_a_byte += on_gpu / machine.gpu_bytes_per_s
    threads = 1 + shape.weights_bytes // THREAD_WORTH_BYTES

    def speed(filled_tokens: int) -> float:
        return decode_tokens_per_s(
            shape, how.kv_type, filled_tokens=filled_tokens, bytes_per_s=1 / seconds_a_byte
        )

    return Plan(
        candidate=candidate,
        shape=shape,
        how=how,
        memory=memory(shape, how, machine.isa),
        threads_decode=wishes.threads or min(machine.threads_decode, threads),
        threads_prefill=wishes.threads or min(machine.threads_prefill, threads),
        decode_tokens_per_s=speed(min(SHORT_TOKENS, how.ctx)),
        full_tokens_per_s=speed(how.ctx),
    )


def _shortage(plan: Plan, machine: Machine) -> str:
    need, have, where = _missing(plan, machine)
    what = f"{plan.how.ctx} tokens a slot and {plan.how.kv_type} cache"
    return f"needs {mib(need)} with {what}: {mib(need - have)} more than the {mib(have)} of {where}"


def _missing(plan: Plan, machine: Machine) -> tuple[int, int, str]:
    """What is needed and what there is of the memory that does not suffice, and whose it is."""
    if (need := needed(plan, machine)) > machine.memory_bytes:
        return need, machine.memory_bytes, machine.limited_by
    return plan.memory.gpu.total_bytes, machine.gpu_bytes, "the GPU's memory"


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
            need, have, where = _missing(plan, machine)
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
