"""`python -m benchmarks.flood`: 10,000 prompts a minute at a full queue, while a few prompts run.

A broker, a daemon with a model of Phi-3-mini's full shape, long answers in every slot, a full
queue. Then a process publishes prompts at an even rate, in turns to the daemon and to a topic that
nobody reads. Every refused prompt has to have its answer, and the tokens a second of those that
run must be within 5 % of what they are when nobody reads. Needs mosquitto and llama-cpp-python.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.bus import daemon
from benchmarks.flood.run import FLOODED, QUEUE, SLOTS, Flooding, flood
from benchmarks.soak.processes import processes
from edged.cli.local_broker import find_mosquitto, local_broker
from edged.hardware.machine import read_machine
from edged.models.catalogue import read_catalogue
from edged.models.shape_file import write_shape_file

MODEL, QUANT = "phi-3-mini-4k-instruct", "q4_0"
LEAST_RATIO = 0.95
MAX_TOKENS = 256
"""Few enough that the slots' cache stays about as full: steps with a full one take longer."""
CTX = 1024


@click.command()
@click.option("--shape", type=click.Path(path_type=Path, dir_okay=False), help="A shape model.")
@click.option("--pairs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="Of each flood.")
@click.option("--per-minute", default=10_000.0, show_default=True, help="Prompts.")
@click.option(
    "--pin", is_flag=True, help="The worker has all cores but one, all else has that one."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write results here.")
def main(
    shape: Path | None,
    pairs: int,
    seconds: float,
    per_minute: float,
    *,
    pin: bool,
    json_file: Path | None,
) -> None:
    """Flood a node; exit code 1 where a prompt has no answer or the tokens become too few."""
    if find_mosquitto() is None:
        raise click.ClickException("mosquitto is needed; install it: apt-get install mosquitto")
    console = Console(width=None if sys.stdout.isatty() else 160)
    load_before = os.getloadavg()[0]
    cores = sorted(os.sched_getaffinity(0))
    rest = {cores[-1]} if pin else set(cores)
    threads = len(cores) - 1 if pin else len(cores)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = shape or folder / "shape.gguf"
        if shape is None:
            with console.status(f"writing {MODEL} {QUANT}"):
                write_shape_file(read_catalogue().find(MODEL), QUANT, model)
        os.sched_setaffinity(0, rest)  # and so the broker's, the daemon's and the generator's
        settings = {
            "model__path": model,
            "engine__name": "llama_cpp",
            "engine__slots": SLOTS,
            "engine__ctx": CTX,
            "engine__threads": threads,
            "queue__max_prompts": QUEUE,
        }
        with (
            local_broker(folder) as (_, port),
            daemon(folder, port, "flood", **settings) as node,
            console.status("") as status,
        ):
            if pin:
                _pin_all(processes(node.pid)["worker"].pid, set(cores[:-1]))
            found = flood(
                port,
                node,
                pairs=pairs,
                seconds=seconds,
                per_minute=per_minute,
                max_tokens=MAX_TOKENS,
                look=status.update,
            )
    _show(console, found, threads, load_before)
    if json_file:
        windows = [asdict(window) for window in found.windows]
        text = json.dumps({"windows": windows, "ratios": found.ratios}, indent=2)
        json_file.write_text(text + "\n")
    holds = statistics.median(found.ratios) >= LEAST_RATIO
    sys.exit(not holds or bool(found.unanswered or found.strange))


def _pin_all(pid: int, cores: set[int]) -> None:
    """Every thread that is there."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def _show(console: Console, found: Flooding, threads: int, load_before: float) -> None:
    table = Table(box=MARKDOWN)
    for column in (
        *("published to", "prompts", "a minute", "queue_full", "accepted", "no answer"),
        *("slowest answer, s", "tokens/s", "daemon's CPU, s", "worker's CPU, s"),
    ):
        table.add_column(column, justify="right")
    for window in found.windows:
        said, answers = window.flood, window.flood["answers"]
        is_flood = window.target == FLOODED
        table.add_row(
            "the node" if is_flood else "nobody",
            str(said["published"]),
            f"{60 * said['published'] / said['seconds']:,.0f}",
            *(
                (
                    str(answers.get("queue_full", 0)),
                    str(answers.get("accepted", 0)),
                    str(said["unanswered"]),
                    str(said["slowest_s"]),
                )
                if is_flood
                else [""] * 4
            ),
            f"{window.tokens_per_s:.2f}",
            f"{window.daemon_cpu_s:.2f}",
            f"{window.worker_cpu_s:.1f}",
        )
    console.print(table)
    ratios = found.ratios
    console.print(
        f"tokens/s while flooded ÷ while nobody reads it: {min(ratios):.3f}, "
        f"{statistics.median(ratios):.3f}, {max(ratios):.3f} (least, median, most; goal "
        f"{LEAST_RATIO}); {statistics.median(found.refusal_ms):.2f} ms of the daemon's for each "
        f"refused prompt; {found.unanswered} without an answer, {found.strange or 'none'} with "
        "another one",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"{MODEL} {QUANT}, {threads} threads; {read_machine().cpu_model}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}; load average "
        f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
