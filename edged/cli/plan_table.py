"""What ``edged plan`` shows to people: the machine, every model with its memory, the choice."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from rich.console import Console
from rich.text import Text

from edged.cli.outlook import Outlook
from edged.models.choice import Fits, Verdict
from edged.models.fallback import Admitted, Shortfall
from edged.models.plan import Machine, Plan, describe_context, mib
from edged.models.sizing import Parts

_SIGNS: Final[dict[Fits, tuple[str, str]]] = {
    "fits": ("✓", "green"),
    "too large": ("✗", "red"),
    "too slow": ("~", "yellow"),
    "not loadable": ("–", "bright_black"),
}
# Weights, cache, compute, overhead: told apart without colours, too.
_PARTS: Final = (("█", "blue"), ("▓", "cyan"), ("▒", "magenta"), ("░", "bright_black"))
_PART_NAMES: Final = ("weights", "KV cache", "compute", "overhead")
_LIMIT, _BEYOND, _EMPTY = "│", "»", "·"
_IN_ASCII: Final = str.maketrans("✓✗–█▓▒░│»·→≤×", "+x-#=o.|>_><x")

_LEFT_COLUMNS: Final = 25
"""Arrow, sign, quantisation and outcome."""
_RIGHT_COLUMNS: Final = 41
"""Total, a prompt's context with what all share, cache type, speeds."""
_NARROWEST, _WIDEST = 80, 132


def report(outlook: Outlook) -> None:
    """Print it; without colours where stdout is no terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    columns = min(max(console.width, _NARROWEST), _WIDEST)
    for line in _lines(outlook, columns):
        line.rstrip()
        console.print(_printable(line, console.encoding), soft_wrap=True)


def _printable(line: Text, encoding: str) -> Text:
    """What ``encoding`` lacks becomes something like it, not an error."""
    shown = line.copy()
    try:
        line.plain.encode(encoding)
    except UnicodeEncodeError:
        plain = line.plain.translate(_IN_ASCII)
        shown.plain = plain.encode(encoding, "replace").decode(encoding)
    return shown


def _lines(outlook: Outlook, columns: int) -> Iterator[Text]:
    yield from _headline(outlook, columns)
    yield Text()
    yield from _table(outlook, columns)
    yield Text()
    yield from _conclusion(outlook, columns)


def _headline(outlook: Outlook, columns: int) -> Iterator[Text]:
    profile, machine = outlook.profile, outlook.machine
    where = "this machine" if outlook.now is not None else "by its profile alone"
    yield Text(f"{profile.name}: {profile.description} ({where})", "bold")
    yield from _fact("memory", _budget(outlook), columns)
    speed = (machine.gpu_bytes_per_s or machine.bytes_per_s) / 1e9
    yield from _fact(
        "speed",
        f"decoding reads {speed:.1f} GB/s; a model must make {machine.min_tokens_per_s:g} tokens/s "
        f"or more; engine {machine.engine}",
        columns,
    )
    if outlook.now is not None:
        yield from _fact("right now", f"{_available(outlook.now)} available", columns)


def _budget(outlook: Outlook) -> str:
    machine, memory = outlook.machine, outlook.profile.memory
    words = []
    if machine.gpu_bytes:
        words.append(
            f"GPU {mib(machine.gpu_bytes)} = {mib(memory.vram_bytes)} less "
            f"{mib(memory.vram_kept_bytes)} for driver and desktop; RAM"
        )
    words.append(f"{mib(machine.memory_bytes)} at most")
    total = memory.total_bytes
    if total is not None and total - memory.kept_for_system_bytes == machine.memory_bytes:
        words.append(f"= {mib(total)} less {mib(memory.kept_for_system_bytes)} for the system")
    else:
        words.append(f"({machine.limited_by})")
    if machine.is_unified:
        words.append("; CPU and GPU share it")
    return " ".join(words).replace(" ;", ";")


def _available(now: Machine) -> str:
    gpu = f" and {mib(now.gpu_bytes)} of the GPU" if now.gpu_bytes else ""
    return f"{mib(now.memory_bytes)} ({now.limited_by}){gpu}"


def _table(outlook: Outlook, columns: int) -> Iterator[Text]:
    bar = columns - _LEFT_COLUMNS - _RIGHT_COLUMNS
    left = f"    {'quant':<8}{'verdict':<13}"
    right = f"{'total':>10}  {'context/shared':<20}{'tokens/s':>9}"
    yield Text(f"{left}{'memory':<{bar}}{right}", "bold")
    verdicts = outlook.choice.verdicts
    for name, group in groupby(verdicts, key=lambda each: _heading(outlook, each)):
        yield Text(name, "bold")
        for verdict in group:
            yield from _rows(outlook, verdict, bar, columns)
    yield Text()
    yield _legend(outlook)
    shared = "tokens of one prompt with its answer/of all slots together"
    yield Text(f"    context/shared: {shared}", "dim")
    yield Text("    tokens/s: predicted, with a short context/with a full one", "dim")


def _heading(outlook: Outlook, verdict: Verdict) -> str:
    return outlook.entry(verdict.candidate) or verdict.candidate.name


def _rows(outlook: Outlook, verdict: Verdict, bar: int, columns: int) -> Iterator[Text]:
    sign, colour = _SIGNS[verdict.outcome]
    plan, chosen = verdict.plan, outlook.chosen
    is_chosen = chosen is not None and verdict.candidate is chosen.candidate
    line = Text("→ " if is_chosen else "  ")
    line.append(f"{sign} {verdict.candidate.quant:<8}{verdict.outcome:<13}", colour)
    if plan is None:
        yield line
    else:
        kinds = _kinds(plan, outlook.machine)
        label, parts, limit_bytes = kinds[0]
        line.append(label)
        line.append_text(_bar(parts, limit_bytes, bar - len(label)))
        line.append(f"{_gib(parts.total_bytes):>10}  ")
        line.append(f"{f'{plan.how.ctx}/{plan.how.cells}':<14}{plan.how.kv_type:<5}")
        speeds = f"{plan.decode_tokens_per_s:.1f}/{plan.full_tokens_per_s:.1f}"
        line.append(f"{speeds:>10}", "" if verdict.outcome == "fits" else colour)
        yield line
        for label, parts, limit_bytes in kinds[1:]:
            more = Text(" " * _LEFT_COLUMNS + label)
            more.append_text(_bar(parts, limit_bytes, bar - len(label)))
            more.append(f"{_gib(parts.total_bytes):>10}")
            yield more
    if verdict.outcome != "fits" or (plan and 0 < plan.how.gpu_layers <= plan.shape.layers):
        yield from _wrapped(_why(verdict, outlook.machine), columns, " " * 12, "dim")
    if verdict.candidate.path is not None:
        yield Text(f"{'':<12}here: {verdict.candidate.path}", "dim")


def _why(verdict: Verdict, machine: Machine) -> str:
    """In short: what the headline says is not repeated in every row."""
    plan = verdict.plan
    if plan is not None and verdict.outcome == "fits":
        return f"only {plan.how.gpu_layers} of {plan.shape.layers} layers fit the GPU"
    if plan is None or verdict.outcome != "too large":
        return verdict.why
    over = max(parts.total_bytes - limit for _, parts, limit in _kinds(plan, machine))
    return f"{mib(over)} too much with {plan.how.ctx} tokens a prompt and {plan.how.kv_type} cache"


def _kinds(plan: Plan, machine: Machine) -> list[tuple[str, Parts, int]]:
    """Each kind of memory: what it is called where there are two, what it takes, its limit."""
    if not machine.gpu_bytes:
        parts = plan.memory.both if machine.is_unified else plan.memory.host
        return [("", parts, machine.memory_bytes)]
    host = ("RAM ", plan.memory.host, machine.memory_bytes)
    return [("GPU ", plan.memory.gpu, machine.gpu_bytes), host] if plan.how.gpu_layers else [host]


def _bar(parts: Parts, limit_bytes: int, columns: int) -> Text:
    """The parts on a scale whose limit stands at two thirds; what goes past the end is cut."""
    limit = columns * 2 // 3
    sizes = (parts.weights_bytes, parts.kv_bytes, parts.compute_bytes, parts.overhead_bytes)
    cells: list[tuple[str, str]] = []
    filled_bytes = 0
    for size, part in zip(sizes, _PARTS, strict=True):
        filled_bytes += size
        cells += [part] * (round(filled_bytes * limit / limit_bytes) - len(cells))
    # Rounding must not tell another story than the figures.
    if parts.total_bytes <= limit_bytes:
        cells = cells[:limit]
    else:
        cells += [_PARTS[-1]] * (limit + 1 - len(cells))
    empty = [(_EMPTY, "bright_black")] * (limit - len(cells))
    shown = [*cells[:limit], *empty, (_LIMIT, "bold"), *cells[limit:]]
    if len(shown) > columns - 1:
        shown = [*shown[: columns - 2], (_BEYOND, "red")]
    return Text().join(Text(*cell) for cell in [*shown, (" " * (columns - len(shown)), "")])


def _legend(outlook: Outlook) -> Text:
    text = Text("    ")
    for (sign, colour), name in zip(_PARTS, _PART_NAMES, strict=True):
        text.append(sign, colour).append(f" {name}  ")
    machine = outlook.machine
    limit = "each memory's limit" if machine.gpu_bytes else _gib(machine.memory_bytes)
    return text.append(f"{_LIMIT} {limit}")


def _conclusion(outlook: Outlook, columns: int) -> Iterator[Text]:
    plan = outlook.chosen
    if plan is None:
        yield from _fact("choice", "none", columns, "bold red")
        yield from _fact("why", outlook.choice.reason, columns)
        return
    how, both = plan.how, plan.memory.both
    yield from _fact("choice", plan.title, columns, "bold green")
    gpu = f", {min(how.gpu_layers, plan.shape.layers + 1)} layers on the GPU" * bool(how.gpu_layers)
    threads = f"threads: {plan.threads_prefill} to read prompts, {plan.threads_decode} to answer"
    measured = outlook.machine.measured
    if measured is not None and measured.hold_for(plan.shape.weights_bytes):
        threads += " (measured)"
    yield from _fact(
        "",
        f"{describe_context(how)}, {how.kv_type} cache, load mode {how.load_mode}{gpu}, {threads}, "
        f"{plan.rope} rope factors",
        columns,
    )
    yield from _fact(
        "memory",
        f"weights {mib(both.weights_bytes)} + cache {mib(both.kv_bytes)} + compute "
        f"{mib(both.compute_bytes)} + overhead {mib(both.overhead_bytes)} = "
        f"{_inequality(plan, outlook.machine)}",
        columns,
    )
    yield from _fact("why", outlook.choice.reason, columns)
    if not outlook.fits_now and outlook.admitted is not None:
        yield from _fact("right now", _now_words(outlook.admitted), columns, "yellow")
    steps = outlook.steps() or ["nothing to do: edged serves it"]
    for number, step in enumerate(steps):
        # Never broken: it is there to be copied.
        yield Text(f"{'' if number else 'next':<11}", "dim").append(step, "not dim")


def _inequality(plan: Plan, machine: Machine) -> str:
    kinds = _kinds(plan, machine)
    words = ", ".join(
        f"{name}{mib(parts.total_bytes)} ≤ {mib(limit)}" for name, parts, limit in kinds
    )
    return words if len(kinds) == 1 else f"{mib(plan.memory.both.total_bytes)}: {words}"


def _now_words(admitted: Admitted | Shortfall) -> str:
    if isinstance(admitted, Shortfall):
        return f"it does not fit: {admitted}"
    return f"it needs more; edged would give way: {'; '.join(admitted.steps)}"


def _fact(name: str, text: str, columns: int, style: str = "") -> Iterator[Text]:
    for number, part in enumerate(_broken(text, columns - 11)):
        line = Text(f"{'' if number else name:<11}", "dim")
        yield line.append(part, style or "not dim")


def _wrapped(text: str, columns: int, indent: str, style: str) -> Iterator[Text]:
    for part in _broken(text, columns - len(indent)):
        yield Text(indent + part, style)


def _broken(text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
