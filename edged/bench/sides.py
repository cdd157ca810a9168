"""The two sides of a comparison, and their processes."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edged.bench.figures import Answer
from edged.errors import EdgedError

START_S = 600.0
"""The longest load of a model from a slow card."""
STOP_S = 10.0
_LOG_LINES = 10


@dataclass(frozen=True)
class Setup:
    """What both sides are given; ``threads`` ``None`` leaves each its own default."""

    model: Path
    clients: int
    ctx: int
    """Tokens that each client's prompt and its answer may fill."""
    threads: int | None
    is_shape: bool = False
    """Whether the weights are random: an answer then soon repeats itself, as no real one does."""


class Side(Protocol):
    """Something that answers prompts, in processes of its own."""

    name: str

    def start(self) -> None:
        """Load the model; ``facts`` are known afterwards."""
        ...

    def stop(self) -> None:
        """Give everything back; may be started again."""
        ...

    @property
    def facts(self) -> Mapping[str, object]:
        """What it is, for the conditions: version, build flags."""
        ...

    @property
    def pid(self) -> int:
        """Of the process above all of its others."""
        ...

    def ask(self, prompts: Sequence[str], max_tokens: int) -> list[Answer]:
        """Every client asks at the same time, greedily; returns when all are answered."""
        ...


class Child:
    """A process in a session of its own, with its log in a file."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> None:
        """``piped``: its stdin and stdout are ours, else nothing and the log."""
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 (our own arguments)
                command,
                env=environment,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                text=True,
                start_new_session=True,  # Ctrl-C is ours; we end it
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def write(self, line: str) -> None:
        """A line to its stdin."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: read says so
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def read(self, what: str) -> str:
        """The next line of its stdout, wanted for ``what``. Raises ``EdgedError`` at its end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.failure(what)
        return line

    def failure(self, what: str) -> EdgedError:
        """Says that it fails at ``what``, with the end of its log."""
        tail = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return EdgedError(f"{what} fails; its log ends with:\n" + "\n".join(tail))

    def end(self) -> None:
        """Ask it to end, then make it."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        resume(self.pid)  # who is stopped hears nothing
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def suspend(pid: int) -> None:
    """Let nothing of a session run until ``resume``."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGSTOP)


def resume(pid: int) -> None:
    """See ``suspend``."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGCONT)


def cpu_s(pid: int) -> float:
    """Processor time that a process and its children have used; 0 when it is gone."""
    try:
        # The name, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text("ascii").split()
        ]
    except OSError:
        return 0.0
    own_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own_s + sum(cpu_s(child) for child in children)
