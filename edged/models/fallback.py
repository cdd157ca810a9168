"""What gives, and in which order, where a plan meets less memory than it was made for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edged.models.configuration import KV_TYPES
from edged.models.plan import (
    GPU_MEMORY,
    MIN_CTX,
    Machine,
    Plan,
    changed,
    describe_context,
    fits,
    mib,
    missing,
    needed,
)
from edged.models.sizing import kv_type_fits

FALLBACK_CTX: Final = 1024
"""As short as a context is made when memory is missing."""


@dataclass(frozen=True)
class Admitted:
    """A plan that fits what is available now, and what had to give for it, in words."""

    plan: Plan
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Shortfall:
    """Nothing fits: what the smallest way needs, and what there is."""

    title: str
    way: str
    """How little was left to it, in words."""
    needed_bytes: int
    available_bytes: int
    limited_by: str

    @property
    def is_of_gpu(self) -> bool:
        """Whether it is the GPU's memory that is missing."""
        return self.limited_by == GPU_MEMORY

    def __str__(self) -> str:
        return (
            f"not enough memory: {self.title} needs {mib(self.needed_bytes)} at the least (with "
            f"{self.way}), {mib(self.available_bytes)} are available ({self.limited_by})"
        )


def admit(plans: Sequence[Plan], machine: Machine) -> Admitted | Shortfall:
    """Hold plans, the best first, against what ``machine`` has now; make them smaller if need be.

    In this order: smaller cache elements, a smaller cache for the slots to share, down to the
    context of one prompt, a shorter context, another model.
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
    way = f"{describe_context(least.how)}, and {least.how.kv_type} cache"
    return Shortfall(least.title, way, *missing(least, machine))


def _ladder(plan: Plan, machine: Machine, shortest_ctx: int) -> Iterator[tuple[Plan, str | None]]:
    """The plan, then ever smaller ones, each with what has given."""
    yield plan, None
    if not machine.is_unified and plan.memory.gpu.total_bytes > machine.gpu_bytes:
        # What is missing is the GPU's own memory: as many layers as it holds, the rest beside it.
        fewer = (
            changed(plan, machine, gpu_layers=n) for n in range(plan.how.gpu_layers - 1, -1, -1)
        )
        held = next(each for each in fewer if each.memory.gpu.total_bytes <= machine.gpu_bytes)
        step = f"{held.how.gpu_layers} layers on the GPU instead of {plan.how.gpu_layers}"
        plan = held
        yield plan, step
    if plan.how.engine != "ctransformers":
        for kv_type in KV_TYPES[KV_TYPES.index(plan.how.kv_type) + 1 :]:
            if kv_type_fits(plan.shape, kv_type):
                step = f"{kv_type} cache instead of {plan.how.kv_type}"
                plan = changed(plan, machine, kv_type=kv_type)
                yield plan, step
    while plan.how.cells > plan.how.ctx:
        cells = max(plan.how.cells // 2, plan.how.ctx)
        step = f"{cells} tokens of all prompts together instead of {plan.how.cells}"
        plan = changed(plan, machine, cells=cells)
        yield plan, step
    while plan.how.ctx > shortest_ctx:
        ctx = max(plan.how.ctx // 2, shortest_ctx)
        step = f"{ctx} tokens a prompt instead of {plan.how.ctx}"
        plan = changed(plan, machine, ctx=ctx, cells=ctx)
        yield plan, step
