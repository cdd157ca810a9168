"""Real processes for the system tests: Mosquitto and the daemon."""

import contextlib
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bus_client import PATIENCE_S, BusClient

from edged.cli.local_broker import find_mosquitto, free_port


class Broker:
    """A Mosquitto of its own, that can be stopped and started again."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "set_tcp_nodelay true\n" + extra
        )
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = find_mosquitto()
        assert program, "mosquitto is needed for these tests; tools/setup dev installs it"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._config)], stdout=log, stderr=log
            )
        wait_until_open(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
            self._process = None


def wait_until_open(port: int) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < until_s, f"nothing listens on {port}"
            time.sleep(0.02)
        else:
            return


def node_environment(name: str, port: int, folder: Path, **settings: object) -> dict[str, str]:
    """What a node's daemon and its operator's commands find in their environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGED_")}
    environment |= {
        "EDGED_NODE": name,
        "EDGED_STATE_DIR": str(folder / "state"),
        "EDGED_MODEL__STORE": str(folder / "store"),
        # The end of a test is not to wait for who is still being answered.
        "EDGED_DRAIN_S": "1",
        "EDGED_MQTT__HOST": "127.0.0.1",
        "EDGED_MQTT__PORT": str(port),
    }
    return environment | {f"EDGED_{key.upper()}": str(value) for key, value in settings.items()}


def edged(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command of the operator's."""
    return subprocess.run(
        [sys.executable, "-m", "edged", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
        check=False,
    )


class Node:
    """A daemon process and its worker."""

    def __init__(
        self, name: str, port: int, folder: Path, *, group: Path | None = None, **settings: object
    ) -> None:
        """``group``: a control group's folder, to run in."""
        self.name = name
        self.port = port
        self.log_file = folder / f"{name}.log"
        self._environment = node_environment(name, port, folder, **settings)
        command = [sys.executable, "-m", "edged", "run"]
        if group is not None:
            enter = f"echo 0 > {group}/cgroup.procs && exec "
            command = ["/bin/sh", "-c", enter + shlex.join(command)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of the operator's, with the node's settings."""
        return edged(self._environment, *arguments)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def wait_for_state(self, model_state: str) -> dict[str, object]:
        """Until the retained state says so; returns it."""
        with BusClient(self.port) as client:
            # What is retained of a node of the same name before must not count.
            client.subscribe(f"edged/v1/{self.name}/status")
            client.subscribe(f"edged/v1/{self.name}/state")
            until_s = time.monotonic() + PATIENCE_S
            status, state = b"", {}
            while time.monotonic() < until_s and self.process.poll() is None:
                with contextlib.suppress(queue.Empty):
                    got = client.next(timeout_s=1.0)
                    if got.topic.endswith("/status"):
                        status = got.payload
                    else:
                        state = got.json
                    if status == b"online" and state.get("model_state") == model_state:
                        return state
        raise AssertionError(f"{self.name} is not {model_state}; its log: {self.log}")

    def card(self) -> dict[str, object]:
        """What is retained of it now."""
        with BusClient(self.port) as client:
            client.subscribe(f"edged/v1/{self.name}/card")
            return client.next().json

    def wait_for_log(self, text: str, times: int = 1) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while self.log.count(text) < times:
            assert time.monotonic() < until_s, self.log
            time.sleep(0.05)

    def worker_pid(self) -> int:
        """The one child that runs the engine."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        pids = [int(pid) for pid in children.split()]
        assert len(pids) == 1, children
        return pids[0]


@contextlib.contextmanager
def running(
    name: str, port: int, folder: Path, *, group: Path | None = None, **settings: object
) -> Iterator[Node]:
    """A node that serves, stopped at the end."""
    node = Node(name, port, folder, group=group, **settings)
    try:
        node.wait_for_state("serving")
        yield node
    finally:
        node.stop()
