"""A broker for the time of a demonstration: Mosquitto, or amqtt where there is none."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edged.errors import BrokerError

START_S = 10.0
STOP_S = 5.0
# Debian installs it where a user's PATH may not look.
_SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


@contextlib.contextmanager
def local_broker(folder: Path) -> Iterator[tuple[str, int]]:
    """A broker on a free port of the loopback address: what it is, and its port.

    ``folder`` takes its configuration and log. Raises ``BrokerError`` when none is installed
    or it does not start.
    """
    port = free_port()
    name, command = _command(folder, port)
    log = folder / "broker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (our own arguments)
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_until_open(process, port, log)
        yield name, port
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_mosquitto() -> str | None:
    """Where the mosquitto program is."""
    return shutil.which("mosquitto", path=_SEARCH_PATH)


def _command(folder: Path, port: int) -> tuple[str, list[str]]:
    if mosquitto := find_mosquitto():
        file = folder / "mosquitto.conf"
        file.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "set_tcp_nodelay true\n"  # else small messages wait 40 ms for each other
        )
        return "Mosquitto", [mosquitto, "-c", str(file)]
    if importlib.util.find_spec("amqtt"):
        file = folder / "amqtt.yaml"  # JSON is YAML, too
        listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}
        anyone = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        file.write_text(json.dumps({"listeners": listeners, "plugins": anyone}))
        return "amqtt", [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(file)]
    raise BrokerError(
        "there is no MQTT broker here; install one with: apt-get install mosquitto "
        "(or pip install 'edged[amqtt]')"
    )


def _wait_until_open(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise BrokerError(f"the broker did not start: {log.read_text(errors='replace')[-500:]}")
