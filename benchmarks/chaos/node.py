"""The daemon under test: a real process, started again whenever it ends, as systemd would."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak.processes import Process, processes

RESTART_S = 1.0
SAMPLE_S = 1.0
STOP_S = 60.0


@dataclass
class Life:
    """One process: the daemon, or a worker of it. Times are CLOCK_MONOTONIC."""

    name: str
    pid: int
    began_s: float
    ended_s: float | None = None
    status: int | None = None
    """Of the daemon: its exit status, negative for a signal."""
    was_killed: bool = False
    """By us."""
    resident_bytes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    stormed: int | None = None
    """So many samples are of the storm; the others are of when everything was asked once more."""

    @property
    def peak_bytes(self) -> int:
        """The most that was seen in the storm."""
        return max(self.resident_bytes[: self.stormed], default=0)

    @property
    def most_bytes(self) -> int:
        """The most that was seen at all."""
        return max(self.resident_bytes, default=0)


class Node:
    """Restart=always, RestartSec=1. ``lives`` are of all its processes that were seen."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``ended`` is told the process id of each daemon that has ended."""
        self._command, self._environment, self._log = command, environment, log
        self._ended = ended
        self.lives: list[Life] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._life: Life | None = None
        self._wanted = threading.Event()
        self._changing = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def start(self) -> None:
        """Does not wait until it serves."""
        self._wanted.set()
        self._thread.start()

    def stop(self) -> int | None:
        """With SIGTERM; returns the last exit status."""
        self._wanted.clear()
        with self._changing:
            process = self._process
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        status: int | None = None
        if process is not None:
            try:
                status = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        self._thread.join()
        return status

    def kill(self) -> int:
        """The daemon, with SIGKILL, as soon as there is one; returns its process id."""
        while True:
            with self._changing:
                process, life = self._process, self._life
                if process is not None and life is not None and process.poll() is None:
                    life.was_killed = True
                    process.send_signal(signal.SIGKILL)
                    return process.pid
            time.sleep(0.05)

    def kill_worker(self) -> int:
        """The same of the worker."""
        while True:
            worker = self.processes().get("worker")
            if worker is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                    return worker.pid
            time.sleep(0.05)

    def processes(self) -> dict[str, Process]:
        """What runs now."""
        with self._changing:
            process = self._process
        if process is None or process.poll() is not None:
            return {}
        return processes(process.pid)

    def _supervise(self) -> None:
        while self._wanted.is_set():
            with self._log.open("ab") as log, self._changing:
                self._process = subprocess.Popen(
                    self._command,
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                self._life = Life("daemon", self._process.pid, time.monotonic())
                self.lives.append(self._life)
            self._watch(self._process, self._life)
            if self._wanted.is_set():
                time.sleep(RESTART_S)

    def _watch(self, process: subprocess.Popen[bytes], life: Life) -> None:
        """Until it ends; what it and its worker hold meanwhile."""
        worker: Life | None = None
        while process.poll() is None:
            now = self.processes()
            _sample(life, now.get("daemon"))
            current = now.get("worker")
            if current is not None and (worker is None or worker.pid != current.pid):
                worker = Life("worker", current.pid, time.monotonic())
                self.lives.append(worker)
            if worker is not None and current is not None:
                _sample(worker, current)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_S)
        with self._changing:
            life.ended_s, life.status = time.monotonic(), process.returncode
        self._ended(process.pid)


def _sample(life: Life, seen: Process | None) -> None:
    if seen is not None and seen.resident_bytes:
        life.resident_bytes.append(seen.resident_bytes)
        life.descriptors.append(seen.descriptors)
        life.threads.append(seen.threads)


def environment(
    folder: Path, state_dir: Path, host: str, port: int, extra: Mapping[str, str]
) -> dict[str, str]:
    """What the daemon of the storm finds in its environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EDGED_")}
    root = str(Path(__file__).parents[2])
    return (
        inherited
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
            "EDGED_CONFIG": os.devnull,
            "EDGED_NODE": NODE,
            "EDGED_STATE_DIR": str(state_dir),
            "EDGED_MODEL__STORE": str(folder / "store"),
            "EDGED_ENGINE__NAME": "llama_cpp",
            "EDGED_ENGINE__SLOTS": "4",
            "EDGED_ENGINE__CTX": str(CTX),
            "EDGED_MQTT__HOST": host,
            "EDGED_MQTT__PORT": str(port),
            # So that a cut is noticed while it lasts.
            "EDGED_MQTT__KEEPALIVE_S": "8",
            # A spool that followed the wall clock would erase everything at the first step.
            "EDGED_SPOOL__KEEP_S": str(KEEP_S),
        }
        | extra
    )


NODE = "chaos"
CTX = 512
KEEP_S = 3600


def recorded_command(book: Path) -> list[str]:
    """The daemon with its book."""
    return [sys.executable, "-m", "benchmarks.chaos.recorded_daemon", str(book)]
