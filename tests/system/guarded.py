"""A Mosquitto that knows its users, as `edged broker acl` sets it up, and guests of it."""

import contextlib
import os
import queue
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from bus_client import PATIENCE_S, BusClient, Got
from node import Broker, Node
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DENIED = "Not authorized"
ENDED = "ended without an answer"
SECRETS = "secrets"


class GuardedBroker(Broker):
    """With the configuration that the command has written, included as Debian's own does it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """``arguments``: of `edged broker acl`."""
        super().__init__(folder)
        self.folder = folder
        command = [sys.executable, "-m", "edged", "broker", "acl", "--out", str(folder), *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGED_")}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        written = (folder / "edged.conf").read_text().replace("/etc/mosquitto", str(folder))
        listener = f"listener {self.port} 127.0.0.1"
        included = folder / "conf.d" / "edged.conf"
        included.parent.mkdir()
        included.write_text(self.adapted(written.replace("listener 8883", listener)))
        # As root it would become another user, who may not read this test's folder.
        self._config.write_text(
            f"persistence true\npersistence_location {folder}/\nuser root\n"
            f"include_dir {included.parent}\n"
        )

    def adapted(self, configuration: str) -> str:
        """Without TLS."""
        lines = configuration.splitlines()
        return "\n".join(line for line in lines if not line.startswith(("certfile", "keyfile")))

    def password(self, user: str) -> str:
        return (self.folder / SECRETS / f"{user}.password").read_text()

    def guest(self, user: str, **options: Any) -> "Guest":
        """A connection with the user's own password."""
        return Guest(self.port, user, self.password(user), **options)


class Guest(BusClient):
    """A client with an account, or without one, that notes what the broker allows."""

    def __init__(
        self,
        port: int,
        user: str | None,
        password: str | None,
        *,
        client_id: str | None = None,
        keeps_session: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.root = "edged/v1"
        self.v5 = True
        self.user = user
        self.inbox: queue.Queue[Got] = queue.Queue()
        self._subscribed = queue.Queue()  # of reasons, here
        self._published: queue.Queue[str] = queue.Queue()
        connected: queue.Queue[str] = queue.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"test-{uuid.uuid4().hex[:12]}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        if user is not None:
            self._client.username_pw_set(user, password)
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda _c, _d, _f, reason, _p: connected.put(str(reason))
        self._client.on_disconnect = lambda *_: connected.put(ENDED)
        self._client.on_subscribe = lambda _c, _d, _m, reasons, _p: self._subscribed.put(
            str(reasons[0])
        )
        self._client.on_publish = lambda _c, _d, _m, reason, _p: self._published.put(str(reason))
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600 if keeps_session else 0
        self._client.connect(
            "127.0.0.1", port, clean_start=not keeps_session, properties=properties
        )
        self._client.loop_start()
        self.welcome = connected.get(timeout=PATIENCE_S)

    def close(self) -> None:
        super().close()
        if (left_open := self._client.socket()) is not None:
            left_open.close()  # as paho leaves it where the broker refuses us

    def subscribe(self, topic: str) -> str:  # type: ignore[override]
        """What the broker says to it."""
        self._client.subscribe(topic, 1)
        reason: str = self._subscribed.get(timeout=PATIENCE_S)  # type: ignore[assignment]
        return reason

    def publish(self, *arguments: Any, **options: Any) -> str:  # type: ignore[override]
        """What the broker says to it."""
        super().publish(*arguments, **options)
        return self._published.get(timeout=PATIENCE_S)

    def asks(self, **body: Any) -> list[dict[str, Any]]:
        """One prompt to the node attic under our own name, and all its replies."""
        return self.ask("attic", self.user, **body)

    def arrived(self) -> list[Got]:
        """All that has come, and will have come of what was sent to us before.

        An answer of our own is waited for, since the broker delivers in order.
        """
        marker = f"marker-{uuid.uuid4().hex}"
        self.send_prompt("attic", self.user, prompt="m", id=marker)
        got = []
        until_s = time.monotonic() + PATIENCE_S
        with contextlib.suppress(queue.Empty):
            while True:
                each = self.inbox.get(timeout=max(0.01, until_s - time.monotonic()))
                # Where subscriptions overlap, each of them brings a copy.
                if "/marker-" not in each.topic:
                    got.append(each)
                elif marker in each.topic and each.json["type"] in ("done", "failed"):
                    return got
        raise AssertionError("the marker was not answered")


@contextlib.contextmanager
def guarded_node(
    broker: GuardedBroker, name: str, folder: Path, **settings: object
) -> Iterator[Node]:
    """A daemon that has its password as a systemd credential."""
    credentials = folder / "credentials"
    credentials.mkdir()
    (credentials / "edged.mqtt.password").write_text(broker.password(name))
    before = os.environ.get("CREDENTIALS_DIRECTORY")
    os.environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    account = {"mqtt__username": name, "mqtt__tls": "false", "mqtt__require_client": "true"}
    try:
        node = Node(name, broker.port, folder, engine__name="echo", **account, **settings)
    finally:
        del os.environ["CREDENTIALS_DIRECTORY"]
        if before is not None:
            os.environ["CREDENTIALS_DIRECTORY"] = before
    try:
        with broker.guest("hub") as hub:
            hub.subscribe(f"edged/v1/{name}/state")
            hub.wait_for(
                lambda got: got.json["model_state"] == "serving", what=f"{name}; log: {node.log}"
            )
        yield node
    finally:
        node.stop()
