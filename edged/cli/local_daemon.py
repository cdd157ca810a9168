"""A daemon for the time of a demonstration, with a state and settings of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from edged.cli.bus import Bus, Node
from edged.errors import EdgedError
from edged.settings import MqttSettings

LOG = "daemon.log"
READY_S = 120.0
STOP_S = 10.0


@contextlib.contextmanager
def local_daemon(
    node: str,
    folder: Path,
    mqtt: MqttSettings,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon of that name; ``folder`` takes its state and log. ``settings``: by dotted name."""
    # Nothing of how a real node on this machine reaches its broker, the password least of all.
    inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith("EDGED_MQTT__")}
    inherited.pop("CREDENTIALS_DIRECTORY", None)
    environment = inherited | {
        "EDGED_CONFIG": os.devnull,
        "EDGED_NODE": node,
        "EDGED_STATE_DIR": str(folder / "state"),
        "EDGED_MQTT__HOST": mqtt.host,
        "EDGED_MQTT__PORT": str(mqtt.port),
        "EDGED_MQTT__PROTOCOL": mqtt.protocol,
        **{f"EDGED_{k.upper().replace('.', '__')}": str(v) for k, v in settings.items()},
    }
    with (folder / LOG).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "edged", "run"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is ours; we end it
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_serving(
    name: str, bus: Bus, daemon: "subprocess.Popen[bytes]", folder: Path
) -> Node:
    """What it says of itself then. Raises ``EdgedError`` where it does not serve."""
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s and daemon.poll() is None:
        node = bus.nodes(name, wait_s=0.2).get(name)
        if node is None or not node.is_online:
            continue
        if node.state.get("model_state") == "refused":
            raise EdgedError(f"the model cannot be served: {node.state.get('reason')}")
        if node.state.get("model_state") == "serving" and node.card.get("model"):
            return node
    raise EdgedError(f"the daemon does not serve; its log ends with:\n{_tail(folder / LOG)}")


def _tail(log: Path, lines: int = 10) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
