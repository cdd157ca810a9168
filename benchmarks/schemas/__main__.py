"""`python -m benchmarks.schemas`: random schemas, random prompts, and what is no schema at all.

Every answer that has ended must parse and validate (`jsonschema`, Draft 2020-12); only one that
was cut by its length may be incomplete. No random schema may be refused, every hostile one must be,
and the worker must answer after each.
"""

import json
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import jsonschema
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.schemas.generate import Generator, Schema
from benchmarks.schemas.hostile import GRAMMARS, SCHEMAS
from benchmarks.schemas.worker import SLOTS, Answer, Worker
from edged.engine.frames import Finished, Refused, Submit
from edged.engine.json_schema import grammar_of
from edged.errors import InvalidRequest
from edged.hardware.machine import read_machine
from edged.messages import ChatMessage, Sampling

PROMPTS = Path(__file__).parents[2] / "tools/tiny_model/eval/commands.json"
MAX_TOKENS = 200
TEMPERATURES = (0.0, 0.8)
ENDS = ("valid", "invalid", "length", "refused")


@dataclass
class Results:
    """Pairs by temperature and by how they ended (``ENDS``); what was wrong, in words."""

    seed: int
    ends: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    hostile: dict[str, str] = field(default_factory=dict)

    def count(self, temperature: float, end: str) -> None:
        """One pair has ended."""
        self.ends.setdefault(str(temperature), dict.fromkeys(ENDS, 0))[end] += 1


@dataclass(frozen=True)
class Pair:
    """A schema, and what is asked under it."""

    job: int
    schema: Schema
    prompt: str
    temperature: float

    def submit(self) -> Submit:
        """The command of the pair. Raises ``InvalidRequest``."""
        grammar = grammar_of({"type": "json_schema", "schema": self.schema})
        return _submit(self.job, self.prompt, self.temperature, grammar)


def pairs(count: int, seed: int) -> Iterator[Pair]:
    """The same for the same seed."""
    prompts = [case["prompt"] for case in json.loads(PROMPTS.read_text("utf-8"))]
    choose = random.Random(seed)
    generator = Generator(seed)
    for job in range(count):
        temperature = TEMPERATURES[job % len(TEMPERATURES)]
        yield Pair(job, generator.schema(), choose.choice(prompts), temperature)


def _submit(job: int, prompt: str, temperature: float, grammar: str | None) -> Submit:
    sampling = Sampling(MAX_TOKENS, temperature, 40, 0.95, 0.0, 1.0, seed=job % 2**32)
    return Submit(job, (ChatMessage("user", prompt),), sampling, grammar=grammar)


def run_pairs(worker: Worker, asked: list[Pair], results: Results) -> None:
    """As many at once as there are slots."""
    open_pairs: dict[int, Pair] = {}
    for pair in track(asked, "pairs", console=Console(stderr=True)):
        jsonschema.Draft202012Validator.check_schema(pair.schema)
        try:
            worker.submit(pair.submit())
        except InvalidRequest as refusal:
            results.count(pair.temperature, "refused")
            results.wrong.append(f"pair {pair.job}: {refusal}")
            continue
        open_pairs[pair.job] = pair
        if len(open_pairs) == SLOTS:
            judge(open_pairs, worker.next_answer(), results)
    while open_pairs:
        judge(open_pairs, worker.next_answer(), results)


def judge(open_pairs: dict[int, Pair], answer: Answer, results: Results) -> None:
    """Count how a pair ended."""
    pair = open_pairs.pop(answer.job)
    if isinstance(answer.end, Refused):
        end, problem = "refused", answer.end.error
    elif answer.end.finish_reason == "stop":
        problem = _problem(answer.text, pair.schema)
        end = "invalid" if problem else "valid"
    else:
        end, problem = answer.end.finish_reason, ""
    results.count(pair.temperature, end)
    if problem:
        results.wrong.append(f"pair {pair.job}: {problem}: {answer.text!r:.200}")


def _problem(text: str, schema: Any) -> str:
    try:
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
    except json.JSONDecodeError as error:
        return f"does not parse: {error}"
    except jsonschema.ValidationError as error:
        return f"does not validate: {error.message}"
    return ""


def run_hostile(worker: Worker, results: Results) -> None:
    """Schemas to the converter, grammars to the worker; it must answer a prompt after each."""
    for name, schema in SCHEMAS.items():
        try:
            grammar_of({"type": "json_schema", "schema": schema})
        except InvalidRequest as refusal:
            results.hostile[name] = refusal.error
        else:
            results.wrong.append(f"{name} is not refused")
    for name, grammar in track(GRAMMARS.items(), "grammars", console=Console(stderr=True)):
        # With others at work: they must not notice.
        worker.submit(_submit(0, "Hello", 0.0, grammar))
        worker.submit(_submit(1, "Turn on the light", 0.0, None))
        for answer in (worker.next_answer(), worker.next_answer()):
            if answer.job == 0 and isinstance(answer.end, Refused):
                results.hostile[f"grammar: {name}"] = answer.end.error
            elif answer.job == 0 or not isinstance(answer.end, Finished):
                results.wrong.append(f"grammar: {name}: job {answer.job} ended as {answer.end}")


@click.command()
@click.option("--pairs", "count", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write results here.")
def main(count: int, seed: int, json_file: Path | None) -> None:
    """Ask all pairs; exit code 1 where something was wrong."""
    before = os.getloadavg()[0]
    results = Results(seed)
    with Worker() as worker:
        run_pairs(worker, [*pairs(count, seed)], results)
        run_hostile(worker, results)
    console = Console()
    console.print(_table(results))
    console.print(f"{len(results.hostile)} of {len(SCHEMAS) + len(GRAMMARS)} hostile ones refused")
    for problem in results.wrong:
        console.print(problem, markup=False)
    load = f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    console.print(f"{read_machine().cpu_model}; {load}")
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(results), indent=2, ensure_ascii=False), "utf-8")
    raise SystemExit(1 if results.wrong else 0)


def _table(results: Results) -> Table:
    table = Table(box=MARKDOWN)
    heads = ("temperature", "pairs", "ended and valid", "ended and not", "cut by length", "refused")
    for head in heads:
        table.add_column(head)
    for temperature, ends in sorted(results.ends.items()):
        table.add_row(temperature, *map(str, (sum(ends.values()), *ends.values())))
    return table


if __name__ == "__main__":
    main()
