"""One way to serve one model on one machine: what it needs, how fast it is, whether it fits."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edged.models.configuration import Configuration, KvType, LoadMode
from edged.models.shape import ModelShape
from edged.models.sizing import Memory, decode_tokens_per_s, memory, rope

MIN_CTX: Final = 4096
"""Tokens a prompt that a chosen model must hold, unless it was trained for fewer."""
SHORT_TOKENS: Final = 256
"""How far a context is filled where a speed is given without saying so."""
THREAD_WORTH_BYTES: Final = 32 * 2**20
"""Threads meet after each of a step's small products: with fewer weights each they wait longer
for one another than they compute."""
ALIKE: Final = 2.0
"""Models whose weights differ by no more than this factor are best served alike."""
GPU_MEMORY: Final = "the GPU's memory"
"""What sets the limit where that is it, in words."""


@dataclass(frozen=True)
class MeasuredThreads:
    """The best numbers of threads that were measured, with a model of so many bytes of weights."""

    weights_bytes: int
    decode: int
    prefill: int

    def hold_for(self, weights_bytes: int) -> bool:
        """Whether a model is about as large as the one that was measured."""
        return 1 / ALIKE <= weights_bytes / self.weights_bytes <= ALIKE


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
    measured: MeasuredThreads | None = None
    """Goes before the profile's numbers."""

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


def threads_worth(weights_bytes: int) -> int:
    """How many threads weights of this size keep busy, see ``THREAD_WORTH_BYTES``."""
    return 1 + weights_bytes // THREAD_WORTH_BYTES


def uses_flash_attention(
    engine: str, kv_type: KvType, gpu_layers: int, isa: Collection[str]
) -> bool:
    """Whether attention is computed in one pass, without writing down all scores.

    A quantised cache needs it and a GPU gains by it. With an f16 cache on a CPU it is the slower
    one: a Phi-3-mini with 1,024 tokens in its cache decoded 9.0 tokens/s without it and 5.5 with
    it, and read chunks of 16 at 28 against 12.7 (2 cores with AVX-512). On ARM nobody has measured
    it, so llama.cpp's default stays there.
    """
    if engine == "ctransformers":
        return False
    return kv_type != "f16" or gpu_layers > 0 or "neon" in isa


def plan_for(
    candidate: Candidate, shape: ModelShape, how: Configuration, machine: Machine, wishes: Wishes
) -> Plan:
    on_gpu = min(how.gpu_layers / (shape.layers + 1), 1.0)
    seconds_a_byte = (1 - on_gpu) / machine.bytes_per_s
    if on_gpu:
        seconds_a_byte += on_gpu / machine.gpu_bytes_per_s
    worth = threads_worth(shape.weights_bytes)
    decode, prefill = min(machine.threads_decode, worth), min(machine.threads_prefill, worth)
    if machine.measured is not None and machine.measured.hold_for(shape.weights_bytes):
        decode, prefill = machine.measured.decode, machine.measured.prefill

    def speed(filled_tokens: int) -> float:
        return decode_tokens_per_s(
            shape, how.kv_type, filled_tokens=filled_tokens, bytes_per_s=1 / seconds_a_byte
        )

    return Plan(
        candidate=candidate,
        shape=shape,
        how=how,
        memory=memory(shape, how, machine.isa),
        threads_decode=wishes.threads or decode,
        threads_prefill=wishes.threads or prefill,
        decode_tokens_per_s=speed(min(SHORT_TOKENS, how.ctx)),
        full_tokens_per_s=speed(how.ctx),
    )


def changed(plan: Plan, machine: Machine, **changes: object) -> Plan:
    how = replace(plan.how, **changes)  # type: ignore[arg-type]
    flash_attention = uses_flash_attention(how.engine, how.kv_type, how.gpu_layers, machine.isa)
    how = replace(how, flash_attention=flash_attention)
    changed = plan_for(plan.candidate, plan.shape, how, machine, Wishes())
    return replace(
        changed, threads_decode=plan.threads_decode, threads_prefill=plan.threads_prefill
    )


def fits(plan: Plan, machine: Machine) -> bool:
    """The inequality: what is needed is at most what is there, in each kind of memory."""
    if needed(plan, machine) > machine.memory_bytes:
        return False
    return machine.is_unified or plan.memory.gpu.total_bytes <= machine.gpu_bytes


def needed(plan: Plan, machine: Machine) -> int:
    """Bytes of the machine's own memory; a GPU that shares it counts in full."""
    parts = plan.memory.both if machine.is_unified else plan.memory.host
    return parts.total_bytes


def missing(plan: Plan, machine: Machine) -> tuple[int, int, str]:
    """What is needed and what there is of the memory that does not suffice, and whose it is."""
    if (need := needed(plan, machine)) > machine.memory_bytes:
        # What is kept for the system may be more than a small machine has.
        return need, max(0, machine.memory_bytes), machine.limited_by
    return plan.memory.gpu.total_bytes, machine.gpu_bytes, GPU_MEMORY


def describe(plan: Plan) -> str:
    """The way to serve it, in a line."""
    how = plan.how
    where = ""
    if how.gpu_layers > plan.shape.layers:
        where = ", all layers on the GPU"
    elif how.gpu_layers:
        where = f", {how.gpu_layers} of {plan.shape.layers} layers on the GPU"
    return (
        f"{describe_context(how)}, {how.kv_type} cache{where}, "
        f"{mib(plan.memory.both.total_bytes)}, {plan.decode_tokens_per_s:.1f} tokens/s"
    )


def describe_context(how: Configuration) -> str:
    """How many tokens a prompt may fill, and how many do so at once."""
    together = "one at a time" if how.slots == 1 else f"{how.slots} at once in {how.cells}"
    return f"{how.ctx} tokens a prompt, {together}"


def mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
