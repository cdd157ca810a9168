"""`python -m benchmarks.fuzz`: mutated publishes by the million, guided by coverage.

Each goes through the transport as if a broker had handed it on, and all that is published for it
is looked at (judge.py). Needs atheris (`pip install --group fuzz`; it has wheels for x86-64). What
is found lies in the folder as files, which `--replay` runs again without it.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table

from benchmarks.fuzz.case import dump, load
from benchmarks.fuzz.judge import Finding, judge
from benchmarks.fuzz.lines import reached
from benchmarks.fuzz.seeds import seeds
from edged.hardware.machine import read_machine

MIB = 2**20
LAST_WORDS = 20


@click.command()
@click.option("--runs", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=7200, show_default=True)
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write results here.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="For the corpus and what is found; goes on with what is there.  [default: a new one]",
)
@click.option(
    "--replay", type=click.Path(path_type=Path, exists=True), help="Judge this file or folder only."
)
def main(
    *,
    runs: int,
    seconds: int,
    seed: int,
    json_file: Path | None,
    folder: Path | None,
    replay: Path | None,
) -> None:
    """Fuzz the decoder until so many runs or seconds; exit code 1 where something was found."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    if replay is not None:
        sys.exit(1 if _replay(replay, console) else 0)
    if importlib.util.find_spec("atheris") is None:
        raise click.ClickException("atheris is needed; install it: pip install --group fuzz")
    folder = folder or Path(tempfile.mkdtemp(prefix="edged-fuzz-"))
    before = os.getloadavg()[0]
    found = _campaign(folder, runs, seconds, seed, console)
    files = sorted((folder / "corpus").iterdir())
    lines = reached(lambda: [_judged(file) for file in track(files, "coverage", console=console)])
    result = {
        **found,
        "seed": seed,
        "corpus_files": len(files),
        "lines": {name: [len(seen), len(all_)] for name, (seen, all_) in lines.items()},
        "not_reached": {name: sorted(all_ - seen) for name, (seen, all_) in lines.items()},
        "machine": read_machine().cpu_model,
    }
    _show(result, console)
    console.print(f"{result['machine']}; load average {before:.1f} before; all of it in {folder}")
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    sys.exit(1 if found["findings"] or found["exit_code"] else 0)


def _campaign(folder: Path, runs: int, seconds: int, seed: int, console: Console) -> dict[str, Any]:
    """Run the process that is fuzzed; the last that it told, and how it ended."""
    for name in ("corpus", "finds"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(seeds()):
        (folder / "corpus" / f"seed-{number:04}").write_bytes(dump(case))
    command = [sys.executable, "-m", "benchmarks.fuzz.campaign"]
    arguments = [str(folder.resolve()), str(runs), str(seconds), str(seed)]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("EDGED_")}
    told: dict[str, Any] = {}
    log = folder / "atheris.log"
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        log.open("wb") as errors,
        Progress(*columns, console=console, transient=True) as progress,
        subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        bar, tenths = progress.add_task("", total=1.0), 0
        for line in process.stdout:
            if not line.startswith(b"{"):
                errors.write(line)  # what atheris has to say
                continue
            told = json.loads(line)
            done = max(told["runs"] / runs, told["seconds"] / seconds)
            finds = sum(told["findings"].values())
            words = f"{told['runs']} runs, {told['runs'] / told['seconds']:.0f}/s, {finds} finds"
            progress.update(bar, completed=done, description=words)
            if not console.is_terminal and int(10 * done) > tenths:
                tenths = int(10 * done)
                console.print(words)
    if process.returncode:
        console.print("the process that is fuzzed has ended; its last words:")
        words = log.read_text(errors="replace").splitlines()[-LAST_WORDS:]
        console.print("\n".join(words), markup=False, highlight=False)
    return {"runs": 0, "findings": {}, **told, "exit_code": process.returncode}


def _replay(path: Path, console: Console) -> int:
    """Judge files again; how many are wrong."""
    wrong = 0
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            judged = judge(load(file.read_bytes()))
        except Finding as finding:
            wrong += 1
            console.print(f"{file.name}: {finding}", markup=False, highlight=False)
        else:
            console.print(f"{file.name}: {judged.end}, {1000 * judged.cpu_s:.1f} ms of CPU")
    return wrong


def _judged(file: Path) -> None:
    try:
        judge(load(file.read_bytes()))
    except (Finding, ValueError, TypeError):
        return


def _show(result: dict[str, Any], console: Console) -> None:
    resident = ", ".join(
        f"{float(part):.0%}: {held / MIB:.0f}" for part, held in result["resident_bytes"].items()
    )
    rows = (
        ("runs", f"{result['runs']:,} in {result['seconds']:.0f} s, seed {result['seed']}"),
        ("finds", _listed(result["findings"].items()) or "none"),
        ("resident memory, MiB", resident),
        ("slowest input, CPU ms", f"{1000 * result['slowest_cpu_s']:.0f}"),
        ("corpus", f"{result['corpus_files']} files"),
        ("ends", _listed(result["ends"].items())),
    )
    console.print(_table(("", ""), rows))
    lines = (
        (name, f"{seen} of {all_}", f"{seen / all_:.1%}")
        for name, (seen, all_) in result["lines"].items()
    )
    console.print(_table(("module", "lines in functions", ""), lines))


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(*heads, box=MARKDOWN)
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
