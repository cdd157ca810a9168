"""Checks of ``edged doctor``: the broker, and what is secret between it and us."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edged.cli.bus import Bus
from edged.errors import BrokerError
from edged.hardware.health import Finding, failure, not_applicable, ok, warning
from edged.settings import CREDENTIAL_PREFIX, MqttSettings
from edged.transports.security import ConnectFailure

TCP_S: Final = 4.0
_SERVICE_CREDENTIALS: Final = "run/credentials/edged.service"


def broker(settings: MqttSettings) -> Finding:
    """Connect as the daemon would, in stages, so that what fails can be named."""
    where = f"{settings.host}:{settings.port}"
    try:
        socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        return failure(
            f"the name {settings.host} is not known ({reason})",
            "set mqtt.host to the broker's right name, or to its address",
        )
    try:
        socket.create_connection((settings.host, settings.port), TCP_S).close()
    except ConnectionRefusedError:
        return failure(
            f"nothing listens on {where} (connection refused)",
            "start the broker: sudo systemctl start mosquitto; or set mqtt.host and mqtt.port. "
            "Mosquitto 2 answers other machines only with a line such as: listener 1883",
        )
    except TimeoutError:
        return failure(
            f"{where} does not answer within {TCP_S:g} s: it is off, or a firewall is between",
            f"see whether it is there: ping {settings.host}; or set mqtt.host and mqtt.port",
        )
    except OSError as error:
        return failure(
            f"{where} cannot be reached: {error.strerror or error}",
            "see to the network, or set mqtt.host and mqtt.port",
        )
    return _greeted(settings, where)


def _greeted(settings: MqttSettings, where: str) -> Finding:
    protocols = ("5", "3.1.1") if settings.protocol == "auto" else (settings.protocol,)
    reason = ""
    for protocol in protocols:
        began_s = time.monotonic()
        try:
            with Bus(settings.model_copy(update={"protocol": protocol, "fallbacks": ()})):
                took_ms = (time.monotonic() - began_s) * 1000
        except ConnectFailure as error:
            return failure(error.fact, error.remedy)
        except BrokerError as error:
            reason = str(error)
        else:
            user = f", as {settings.username}" if settings.username else ""
            return ok(f"{where} lets us in with MQTT {protocol}{user}, after {took_ms:.0f} ms")
        # paho's words for the codes 134 and 135 of MQTT 5, 4 and 5 of 3.1.1.
        if reason.endswith(("Not authorized", "Bad user name or password")):
            return failure(reason, _let_in(settings))
    with_tls = "with TLS" if settings.tls else "without TLS (else set mqtt.tls)"
    remedy = f"see that mqtt.port is the MQTT port, {with_tls}; the broker's log says more"
    if reason.endswith("no answer"):
        return failure(f"{where} takes the connection, but does not answer in MQTT", remedy)
    if settings.protocol != "auto" and "protocol version" in reason:
        remedy = 'set mqtt.protocol = "auto"'
    return failure(reason, remedy)


def _let_in(settings: MqttSettings) -> str:
    if settings.username is None:
        return (
            "set mqtt.username, and its password as the credential edged.mqtt.password; "
            "on the broker: sudo mosquitto_passwd /etc/mosquitto/passwd NAME"
        )
    return (
        f"set the password of {settings.username} anew; on the broker: sudo mosquitto_passwd "
        f"/etc/mosquitto/passwd {settings.username}"
    )


def credential_files(folder: Path | None, root: Path) -> Iterator[Finding]:
    """``folder`` is $CREDENTIALS_DIRECTORY; ``root`` stands for ``/``."""
    service = root / _SERVICE_CREDENTIALS
    if folder is None and service.is_dir():
        yield warning(
            "the service has credentials of its own, which this command was not given",
            f"sudo CREDENTIALS_DIRECTORY=/{_SERVICE_CREDENTIALS} edged doctor",
        )
        return
    if folder is None:
        yield not_applicable("none are passed ($CREDENTIALS_DIRECTORY is not set)")
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield failure(
            f"$CREDENTIALS_DIRECTORY is {folder}, which this user cannot read",
            "let systemd pass them: LoadCredential=edged.mqtt.password:FILE in the unit",
        )
        return
    files = sorted(folder.glob(f"{CREDENTIAL_PREFIX}*"))
    for file in files:
        if not os.access(file, os.R_OK):
            yield failure(f"{file} cannot be read by this user", f"sudo chown $(id -un) {file}")
        elif not file.stat().st_size:
            yield warning(f"{file} is empty", f"write the secret to {file}, without quotes")
    names = ", ".join(file.name for file in files)
    yield ok(f"{folder}: {names or f'nothing named {CREDENTIAL_PREFIX}*'}")


def user_and_password(settings: MqttSettings) -> Iterator[Finding]:
    """Whether the one comes with the other."""
    if settings.username is not None and settings.password is None:
        yield warning(
            f"mqtt.username is {settings.username}, without a password",
            "write it to a file, and pass that: LoadCredential=edged.mqtt.password:FILE",
        )
    if settings.username is None and settings.password is not None:
        yield warning("mqtt.password is set, but not used without mqtt.username", "set both")
