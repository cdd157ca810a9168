"""The files that give Mosquitto 2 its users and their rights, from the rules of ``access.py``.

Formats as `mosquitto_ctrl dynsec init` and `mosquitto_passwd` of 2.0 write them: passwords are
hashed with PBKDF2-SHA512 in 101 rounds, with 12 random bytes of salt.
"""

import base64
import hashlib
import hmac
import json
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from edged.transports.access import Right, User

Format = Literal["dynsec", "aclfile"]

ROUNDS: Final = 101
SALT_BYTES: Final = 12
PASSWORD_BYTES: Final = 24
PLUGIN: Final = "mosquitto_dynamic_security.so"
DYNSEC_FILE: Final = "dynamic-security.json"
ACL_FILE: Final = "aclfile"
ACCOUNTS_FILE: Final = "passwd"


def new_password() -> str:
    """192 random bits; safe in a file, an environment and a line of a firmware."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


@dataclass(frozen=True)
class Hashed:
    """A password as Mosquitto keeps it."""

    salt: bytes
    digest: bytes
    rounds: int = ROUNDS

    @classmethod
    def of(cls, password: str, salt: bytes | None = None, rounds: int = ROUNDS) -> "Hashed":
        """With a new salt where none is given."""
        salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
        return cls(salt, hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds), rounds)

    def is_of(self, password: str) -> bool:
        """Whether this is that password's."""
        again = Hashed.of(password, self.salt, self.rounds)
        return hmac.compare_digest(again.digest, self.digest)


def hashed(passwords: Mapping[str, str], before: Mapping[str, Hashed]) -> dict[str, Hashed]:
    """Every user's; what was written ``before`` and still holds stays as it is, salt and all."""
    return {
        name: kept if (kept := before.get(name)) and kept.is_of(password) else Hashed.of(password)
        for name, password in passwords.items()
    }


# The dynamic-security plugin


def dynsec(users: Iterable[User], kept: Mapping[str, Hashed]) -> str:
    """The plugin's configuration: each user has a role of its own, and nobody has more."""
    users = tuple(users)
    configuration = {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [
            {
                "username": user.name,
                "password": _base64(kept[user.name].digest),
                "salt": _base64(kept[user.name].salt),
                "iterations": kept[user.name].rounds,
                "roles": [{"rolename": user.name}],
            }
            for user in users
        ],
        "roles": [
            {
                "rolename": user.name,
                "acls": [rule for right in user.rights for rule in _rules(right)],
            }
            for user in users
        ],
    }
    return json.dumps(configuration, indent=2) + "\n"


def _rules(right: Right) -> Iterator[dict[str, Any]]:
    match right.act:
        case "write":
            kinds = [("publishClientSend", right.topic)]
        case "read":
            kinds = [("subscribePattern", right.topic), ("publishClientReceive", right.received)]
        case "listen":
            kinds = [("subscribeLiteral", right.topic), ("publishClientReceive", right.received)]
    for kind, topic in kinds:
        yield {"acltype": kind, "topic": topic, "priority": 0, "allow": True}


def hashes_in_dynsec(text: str) -> dict[str, Hashed]:
    """The users' of a configuration written before; none where it cannot be read."""
    try:
        return {
            client["username"]: Hashed(
                base64.b64decode(client["salt"]),
                base64.b64decode(client["password"]),
                int(client["iterations"]),
            )
            for client in json.loads(text)["clients"]
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


# The ACL file and the password file


def acl_file(users: Iterable[User]) -> str:
    """For a broker without pools: such a file guards what is received, not who subscribes."""
    lines = ["# Written by `edged broker acl`. Who is not named here may do nothing."]
    for user in users:
        lines += ["", f"user {user.name}"]
        lines += [
            f"topic {'write' if right.act == 'write' else 'read'} {right.topic}"
            for right in user.rights
        ]
    return "\n".join(lines) + "\n"


def password_file(kept: Mapping[str, Hashed]) -> str:
    """One user a line, as `mosquitto_passwd` writes them."""
    return "".join(
        f"{name}:$7${each.rounds}${_base64(each.salt)}${_base64(each.digest)}\n"
        for name, each in kept.items()
    )


def hashes_in_password_file(text: str) -> dict[str, Hashed]:
    """The users' of a file written before; lines of another kind are left out."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        match rest.split("$"):
            case ["", "7", rounds, salt, digest] if rounds.isdecimal():
                try:
                    found[name] = Hashed(
                        base64.b64decode(salt), base64.b64decode(digest), int(rounds)
                    )
                except ValueError:
                    continue
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# The broker's configuration


def find_plugin() -> str:
    """Where the broker's package has put the plugin; where Debian's would, if it is not here."""
    found = sorted(Path("/usr/lib").glob(f"*/{PLUGIN}"))
    return str(found[0] if found else Path(f"/usr/lib/{platform.machine()}-linux-gnu", PLUGIN))


def broker_configuration(kind: Format, plugin: str, folder: Path = Path("/etc/mosquitto")) -> str:
    """What goes to ``conf.d``; ``folder`` is where the broker finds our other files."""
    if kind == "dynsec":
        access = f"plugin {plugin}\nplugin_opt_config_file {folder / DYNSEC_FILE}\n"
    else:
        access = f"password_file {folder / ACCOUNTS_FILE}\nacl_file {folder / ACL_FILE}\n"
    return _CONFIGURATION.format(access=access, folder=folder)


_CONFIGURATION: Final = """\
# Written by `edged broker acl`, for /etc/mosquitto/conf.d/edged.conf (Mosquitto 2.0).

# Users and rights are the listener's below: another one, for other things, has its own. It has
# to stand before every listener, those of other files included.
per_listener_settings true

# What waits for a node that is away is limited by its size, per node. By default it is 1,000
# messages, and what exceeds them is dropped while its sender is told that all is well.
max_queued_messages 0
max_queued_bytes 67108864

# What waits, and what nodes said of themselves, outlives the broker. Written down only now and
# then, by default every 30 minutes: a power cut forgets what came since.
# Where to (persistence_location) is in Debian's own mosquitto.conf.
persistence true
autosave_interval 30

# Else small messages wait up to 40 ms for each other.
set_tcp_nodelay true

listener 8883
# The certificate must name the host that nodes and clients connect to (mqtt.host).
certfile {folder}/certs/server.crt
keyfile {folder}/certs/server.key
# Mutual TLS, where each user has a certificate whose common name is the user's name, and no
# password. The authority must be one that signs for nobody else.
#cafile {folder}/ca_certificates/edged-ca.crt
#require_certificate true
#use_identity_as_username true

# Who has no account gets nothing.
allow_anonymous false
{access}"""
