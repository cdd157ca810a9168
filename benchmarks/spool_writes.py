"""`python -m benchmarks.spool_writes FOLDER`: how much a prompt wears the flash.

Prompts are accepted, answered and noted as delivered by a real spool on a real disk, one after
another and then so many at a time. Bytes are those that the kernel counts as sent to the disk
(`write_bytes` of `/proc/self/io`), less what was there before; a tmpfs has none. Each commit
syncs SQLite's log once; each time that the log is carried over into the file, it and the file are
synced once more, and the log once when it begins again.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from edged.errors import PromptFailure
from edged.messages import ChatMessage, Done, Prompt, Reply, Sampling, Timings, Usage
from edged.settings import SessionSettings, SpoolSettings
from edged.spool.database import FILE
from edged.spool.spool import Ended, Spool

QUESTION_BYTES = 200
ANSWER_BYTES = 1000
SYNCS_PER_CHECKPOINT = 3


@dataclass(frozen=True)
class Counts:
    """Since the process, or the file, began."""

    commits: int
    checkpoints: int
    disk_bytes: int
    call_bytes: int

    def since(self, before: "Counts") -> "Counts":
        """What has come to it."""
        return Counts(
            self.commits - before.commits,
            self.checkpoints - before.checkpoints,
            self.disk_bytes - before.disk_bytes,
            self.call_bytes - before.call_bytes,
        )

    @property
    def syncs(self) -> int:
        """How often the disk was asked to have everything."""
        return self.commits + SYNCS_PER_CHECKPOINT * self.checkpoints


def counts(spool: Spool, folder: Path) -> Counts:
    """What stands in the books now."""
    lines = (line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
    io = {name: int(value) for name, value in lines}
    with (folder / f"{FILE}-wal").open("rb") as log:
        header = log.read(32)
    # The log's header counts how often it began again (sqlite.org/fileformat2.html, "WAL Header").
    checkpoints = int.from_bytes(header[12:16], "big")
    return Counts(spool.commits, checkpoints, io["write_bytes"], io["wchar"])


def prompt(number: int) -> Prompt:
    """A question as long as most."""
    question = (ChatMessage("user", "x" * QUESTION_BYTES),)
    sampling = Sampling(256, 0.7, 40, 0.95, 0.05, 1.0, seed=number)
    return Prompt(f"prompt-{number}", "kitchen", question, sampling, bytes(32))


def ended(number: int) -> Ended:
    """An answer as long as most."""
    done = Done("x" * ANSWER_BYTES, "stop", Usage(60, 40, 250), Timings(1.5, 2.5, 3.5, 4.5), number)
    return Ended(
        number, bytes(32), '{"topic":"' + "x" * 80 + '"}', Reply(f"prompt-{number}", 9, 0, done)
    )


async def answer(spool: Spool, number: int) -> None:
    """One prompt's way over the disk."""

    def told(future: "asyncio.Future[None]", failure: PromptFailure | None) -> None:
        assert failure is None, failure
        future.set_result(None)

    loop = asyncio.get_running_loop()
    accepted, finished = loop.create_future(), loop.create_future()
    end = ended(number)
    spool.accept(number, prompt(number), end.address, lambda failure: told(accepted, failure))
    await accepted
    spool.finish(prompt(number), end, None, lambda failure: told(finished, failure))
    await finished
    spool.delivered(number, lambda _failure: None)


async def measure(folder: Path, prompts: int, batches: tuple[int, ...]) -> Iterator[Counts]:
    """For each size of a batch, what so many prompts took."""
    spool = Spool(folder, SpoolSettings(), SessionSettings())
    running = asyncio.create_task(spool.run())
    await spool.flush()
    found = []
    number = 0
    for size in batches:
        before = counts(spool, folder)
        for _ in range(0, prompts, size):
            await asyncio.gather(*(answer(spool, number + each + 1) for each in range(size)))
            number += size
        found.append(counts(spool, folder).since(before))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    spool.close()
    return iter(found)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--prompts", default=200, show_default=True)
@click.option("--batch", default=20, show_default=True, help="Prompts at a time, the second time.")
def main(folder: Path, prompts: int, batch: int) -> None:
    batches = (1, batch)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        found = asyncio.run(measure(Path(name), prompts, batches))
    columns = "at a time", "commits", "carried over", "syncs", "kB to the disk", "kB written"
    table = Table("prompts", *columns, box=MARKDOWN)
    for size, each in zip(batches, found, strict=True):
        table.add_row(
            str(prompts),
            str(size),
            f"{each.commits / prompts:.2f}",
            f"{each.checkpoints / prompts:.3f}",
            f"{each.syncs / prompts:.2f}",
            f"{each.disk_bytes / prompts / 1e3:.1f}",
            f"{each.call_bytes / prompts / 1e3:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"All but the first two columns are a prompt's share; its question has {QUESTION_BYTES} "
        f"bytes, its answer {ANSWER_BYTES}."
    )


if __name__ == "__main__":
    main()
