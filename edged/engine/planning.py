"""From settings, profile, store and readings to one plan: what the worker is to load, and why.

The thin side of ``edged.models.choice``: everything that looks at the machine stands here.
It takes time and memory (headers are read, the catalogue too), so the daemon has it done by a
process of its own, ``edged.engine.planner``.
"""

import contextlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edged.engine.frames import Load
from edged.engine.operating_points import read_operating_points
from edged.errors import ConfigError, ModelFileError
from edged.hardware.detect import Detection, completed, detect
from edged.hardware.gpu import gpus
from edged.hardware.machine import read_machine
from edged.hardware.memory import Available, available
from edged.hardware.profile import read_profile
from edged.hardware.schema import Profile
from edged.models.bundled import BUNDLED_MODEL
from edged.models.catalogue import read_catalogue
from edged.models.choice import choose
from edged.models.fallback import Admitted, Shortfall, admit
from edged.models.gguf import check_model, read_header
from edged.models.plan import Candidate, Machine, Plan, Wishes
from edged.models.shape import ModelShape, shape_of
from edged.models.store import Store
from edged.settings import Settings

HOST_BYTES_PER_S: Final = 15e9
"""Of a PC's RAM beside a GPU, where nobody measured it: two channels of DDR4, cautiously."""
ASSUMED_PC_BYTES: Final = 16 * 2**30
"""RAM of a PC that is known only by its graphics card; its layers stay on the card."""
ASSUMED_PC_CORES: Final = 4
UNNAMED_RANK: Final = 1
"""Of a model that is in no catalogue."""


@dataclass(frozen=True)
class Planned:
    """What to load, with what had to give for it, in words."""

    load: Load
    plan: Plan
    steps: tuple[str, ...]
    reason: str


def wishes_of(settings: Settings) -> Wishes:
    """What the operator has set of the plan."""
    engine = settings.engine
    return Wishes(
        ctx=engine.ctx,
        slots=engine.slots,
        kv_type=engine.kv_type,
        load_mode=engine.load_mode,
        gpu_layers=engine.gpu_layers,
        threads=engine.threads,
    )


def engine_name(settings: Settings) -> str:
    """The engine that will serve, as far as can be told without loading its library."""
    if settings.engine.name != "auto":
        return settings.engine.name
    return "llama_cpp" if importlib.util.find_spec("llama_cpp") else "ctransformers"


def offload_is_built() -> bool:
    """Whether the installed llama.cpp can use a GPU: whether its CUDA backend lies beside it."""
    spec = importlib.util.find_spec("llama_cpp")
    folders: Iterable[str] = (spec.submodule_search_locations or ()) if spec else ()
    return any(list(Path(folder).glob("lib/libggml-cuda*")) for folder in folders)


def nominal(profile: Profile, *, engine: str = "llama_cpp", offload: bool = True) -> Machine:
    """The machine by its profile alone: its memory less what is kept for the system.

    Raises ``ConfigError`` for a profile that leaves open what a plan needs.
    """
    memory, speed = profile.memory, profile.bandwidth.decode_bytes_per_s
    discrete = memory.vram_bytes > 0
    total_bytes, limited_by = memory.total_bytes, f"{profile.name} without the system's share"
    if total_bytes is None and discrete:
        total_bytes = ASSUMED_PC_BYTES
        limited_by += f", with {ASSUMED_PC_BYTES >> 30} GiB of RAM assumed"
    if total_bytes is None or speed is None:
        raise ConfigError(
            f"the profile {profile.name} leaves memory or bandwidth to be read from the machine; "
            "plan on that machine, or name a board's profile (edged profiles list)"
        )
    has_gpu = profile.gpu is not None and offload
    cores = profile.cpu.cores or ASSUMED_PC_CORES
    return Machine(
        memory_bytes=total_bytes - memory.kept_for_system_bytes,
        limited_by=limited_by,
        isa=profile.cpu.isa,
        bytes_per_s=HOST_BYTES_PER_S if discrete else speed,
        threads_prefill=profile.cpu.threads_prefill or cores,
        threads_decode=profile.cpu.threads_decode or cores,
        ubatch_tokens=profile.engine.ubatch_tokens,
        slots_max=profile.engine.slots_max,
        min_tokens_per_s=profile.min_tokens_per_s,
        gpu_bytes=memory.vram_bytes - memory.vram_kept_bytes if has_gpu else 0,
        gpu_bytes_per_s=speed if has_gpu else 0.0,
        engine=engine,
    )


def right_now(machine: Machine, now: Available | None = None) -> Machine:
    """The machine with what is available at this moment, as read by the caller or here."""
    now = now or available()
    changed = replace(machine, memory_bytes=now.bytes, limited_by=now.limited_by)
    if machine.gpu_bytes:
        free = [gpu.free_bytes for gpu in gpus() if gpu.free_bytes is not None]
        # Never none at all: that would say that the GPU shares the machine's memory.
        changed = replace(changed, gpu_bytes=max([1, *free]))
    return changed


def detection_of(settings: Settings, *, measured: bool = False) -> Detection:
    """The machine that this is, under the profile that was set or found.

    Its memory's speed is measured, which takes two seconds once, where that was asked for or
    where there is a choice.
    """
    choice = (
        measured or settings.model.path is not None or bool(Store(settings.model.store).models())
    )
    state_dir = settings.state_dir if choice else None
    if settings.profile is None:
        return detect(state_dir=state_dir)
    machine = read_machine()
    profile, words = completed(read_profile(settings.profile), machine, state_dir)
    return Detection(profile, ("profile: set by the operator", *words), machine)


def local(settings: Settings, detection: Detection) -> Machine:
    """The machine as plans are first made for it: all that its profile leaves to edged.

    What of that is there at the moment, within our group's limits, is ``right_now``'s to say.
    """
    engine = engine_name(settings)
    profile = detection.profile
    if profile.bandwidth.decode_gb_per_s is None:
        guess = profile.bandwidth.model_copy(update={"decode_gb_per_s": HOST_BYTES_PER_S / 1e9})
        profile = profile.model_copy(update={"bandwidth": guess})
    offload = engine == "llama_cpp" and offload_is_built()
    points = read_operating_points(settings.state_dir, detection.machine.identity)
    return replace(
        nominal(profile, engine=engine, offload=offload), measured=points.best if points else None
    )


def candidates_of(
    settings: Settings,
    chosen: str | None,
    damaged: Mapping[str, str],
    *,
    may_be_bundled: bool = False,
) -> list[Candidate]:
    """What this node could serve: what was named first, then what of the store is whole.

    The bundled model is one only where the store is empty, or it ``may_be``. ``chosen`` is a name
    in the store, ``damaged`` says of some why they must not be used. Raises ``ModelFileError``
    where nothing is left.
    """
    if settings.model.path is not None:
        stored = []
        with contextlib.suppress(ModelFileError):  # of no store, none can take its place
            stored = stored_candidates(settings, damaged)
        return [replace(file_candidate(settings.model.path), rank=_above_all()), *stored]
    stored = stored_candidates(settings, damaged)
    named = [replace(each, rank=_above_all()) for each in stored if each.name == chosen]
    found = [*named, *(each for each in stored if each.name != chosen)]
    if found:
        return found
    problems = [f"{each.name}: {each.problem}" for each in Store(settings.model.store).models()]
    problems += damaged.values()
    if chosen is not None or (problems and not may_be_bundled):
        raise ModelFileError(
            f"the store {settings.model.store} has no usable model"
            + (f"; {chosen} was chosen" if chosen else "")
            + "".join(f"; {problem}" for problem in problems)
        )
    return [replace(file_candidate(BUNDLED_MODEL), rank=UNNAMED_RANK)]


def make_plan(
    settings: Settings,
    machine: Machine,
    chosen: str | None,
    damaged: Mapping[str, str] = MappingProxyType({}),
    now: Machine | None = None,
    *,
    may_be_bundled: bool = False,
) -> Planned | Shortfall:
    """Choose for ``machine`` as it should be, then hold it against what is there ``now``.

    Raises ``ModelFileError`` and ``EngineUnavailable`` for models that cannot be served.
    """
    candidates = candidates_of(settings, chosen, damaged, may_be_bundled=may_be_bundled)
    choice = choose(candidates, machine, wishes_of(settings))
    # What was named is served even where it is slow, or has to give to fit; and where nothing
    # is both large and fast enough, whatever can be loaded.
    loadable = [verdict.plan for verdict in choice.verdicts if verdict.plan is not None]
    # What was named, a file or a model of the store, stands first among the candidates.
    named = settings.model.path is not None or candidates[0].name == chosen
    plans = choice.plans or choice.slow or tuple(loadable)
    if named:
        first = [plan for plan in loadable if plan.candidate is candidates[0]]
        plans = (*first, *(plan for plan in plans if plan.candidate is not candidates[0]))
    if not plans:
        raise ModelFileError(choice.verdicts[0].why)
    result = admit(plans, now or right_now(machine))
    if isinstance(result, Shortfall):
        return result
    steps = result.steps
    if chosen is not None and not named:
        steps = (f"{plans[0].title} instead of {chosen}, which is not usable", *steps)
    if settings.engine.gpu_layers and not machine.gpu_bytes_per_s:
        nothing = "there is none that the engine here can use"
        steps = (f"0 layers on the GPU instead of {settings.engine.gpu_layers}: {nothing}", *steps)
    return Planned(_load(settings, result), result.plan, steps, choice.reason)


def stored_candidates(
    settings: Settings, damaged: Mapping[str, str] = MappingProxyType({})
) -> list[Candidate]:
    """What of the store is whole and can be read."""
    found = []
    for model in Store(settings.model.store).models():
        if model.problem is None and model.manifest is not None and model.name not in damaged:
            # `edged models list` shows what is wrong with one that cannot be read.
            with contextlib.suppress(ModelFileError):
                rank = _rank(model.manifest.catalogue)
                candidate = replace(file_candidate(model.path), name=model.name)
                found.append(candidate if rank is None else replace(candidate, rank=rank))
    return found


def file_candidate(path: Path) -> Candidate:
    """A file by itself. Raises ``ModelFileError`` unless its header and tensors are sound."""
    header = read_header(path)
    check_model(header)
    shape = shape_of(header)
    return Candidate(header.name, header.quantisation, _rank_of_shape(shape), shape, path)


def _rank(entry: str | None) -> int | None:
    ranks = {each.name: each.rank for each in read_catalogue().models}
    return ranks.get(entry) if entry is not None else None


def _rank_of_shape(shape: ModelShape) -> int:
    """A model of unknown name counts as the least of the catalogue's of its shape."""

    def dimensions(each: object) -> tuple[object, ...]:
        names = ("architecture", "layers", "hidden", "feed_forward", "kv_heads", "vocabulary")
        return tuple(getattr(each, name) for name in names)

    alike = [e.rank for e in read_catalogue().models if dimensions(e) == dimensions(shape)]
    return min(alike, default=UNNAMED_RANK)


def _above_all() -> int:
    return max(entry.rank for entry in read_catalogue().models) + 1


def _load(settings: Settings, admitted: Admitted) -> Load:
    plan = admitted.plan
    return Load(
        engine=settings.engine.name,
        model_path=str(plan.candidate.path),
        model_name=plan.candidate.name,
        state_dir=str(settings.state_dir),
        ctx=plan.how.ctx,
        slots=plan.how.slots,
        threads=plan.threads_decode,
        threads_prefill=plan.threads_prefill,
        kv_type=plan.how.kv_type,
        load_mode=plan.how.load_mode,
        ubatch_tokens=plan.how.ubatch_tokens,
        gpu_layers=plan.how.gpu_layers,
        cells=plan.how.cells,
        flash_attention=plan.how.flash_attention,
        system_prompt=settings.chat.system_prompt,
        echo_step_ms=settings.engine.echo_step_ms,
    )


def catalogue_candidates() -> list[Candidate]:
    """Every entry in every quantisation that has a public file, for plans without files."""
    found = []
    for entry in read_catalogue().models:
        if entry.unloadable is not None:
            found.append(Candidate(entry.name, "-", entry.rank, None, problem=entry.unloadable))
            continue
        for quantisation in entry.files:
            shape = entry.shape(quantisation)
            found.append(Candidate(entry.name, quantisation.upper(), entry.rank, shape))
    return found
