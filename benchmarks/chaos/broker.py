"""A Mosquitto that keeps what it has on disk, and is killed without a warning."""

import contextlib
import signal
import socket
import subprocess
import time
from pathlib import Path

from edged.cli.local_broker import find_mosquitto, free_port

START_S = 20.0
_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
user root
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 0
set_tcp_nodelay true
"""


class Broker:
    """One port and one folder; whoever kills it starts it again."""

    def __init__(self, folder: Path) -> None:
        """Raises ``RuntimeError`` where there is no mosquitto."""
        program = find_mosquitto()
        if program is None:
            raise RuntimeError("mosquitto is needed; install it: apt-get install mosquitto")
        self.port = free_port()
        data = folder / "mosquitto"
        data.mkdir()
        config = folder / "mosquitto.conf"
        config.write_text(_CONFIG.format(port=self.port, folder=data))
        self._command = [program, "-c", str(config)]
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True
            )
        until_s = time.monotonic() + START_S
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1),
            ):
                return
            if time.monotonic() > until_s or self._process.poll() is not None:
                said = self._log.read_text(errors="replace")[-500:]
                raise RuntimeError(f"the broker did not start: {said}")
            time.sleep(0.02)

    def kill(self) -> None:
        """What it had not saved is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
