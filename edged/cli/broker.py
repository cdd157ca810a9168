"""``edged broker acl``: accounts and rights for the broker."""

import os
from pathlib import Path
from typing import get_args

import click
from pydantic import TypeAdapter, ValidationError

from edged.errors import ConfigError
from edged.settings import OTHERS_MODE, MqttSettings, TopicRoot, describe_validation
from edged.transports.access import User, users
from edged.transports.mosquitto import (
    ACCOUNTS_FILE,
    ACL_FILE,
    DYNSEC_FILE,
    Format,
    acl_file,
    broker_configuration,
    dynsec,
    find_plugin,
    hashed,
    hashes_in_dynsec,
    hashes_in_password_file,
    new_password,
    password_file,
)

CONFIGURATION_FILE = "edged.conf"
SECRETS_FOLDER = "secrets"
ENDING = ".password"


@click.group(name="broker")
def command() -> None:
    """Set up the broker for nodes and clients."""


@command.command()
@click.option("--nodes", required=True, help="Their names: attic,cellar.")
@click.option("--clients", required=True, help="Who asks: kitchen,hub. A node may be one, too.")
@click.option(
    "--pools", default="", help="Of all nodes: fleet. Of some: fleet=attic+cellar,spare=…"
)
@click.option("--root", default=MqttSettings().topic_root, show_default=True, help="Of the topics.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(get_args(Format)),
    default="dynsec",
    show_default=True,
    help="Mosquitto's dynamic-security plugin, or the ACL file, which cannot guard pools.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("edged-broker"),
    show_default=True,
    help="The folder to write to.",
)
def acl(*, nodes: str, clients: str, pools: str, root: str, kind: Format, out: Path) -> None:
    """Write Mosquitto's accounts: one a node and one a client, each with its own topics only.

    Passwords are made, written to one file a user, and shown nowhere; those that are there
    already are kept, so it can be run again.
    """
    members = _members(pools, _names(nodes))
    if members and kind == "aclfile":
        raise ConfigError(
            "an ACL file cannot keep others from a pool's shared subscription, who would swallow "
            "its prompts; take --format dynsec, or leave --pools out"
        )
    accounts = users(_root(root), _names(nodes), _names(clients), members)
    passwords = _passwords(out / SECRETS_FOLDER, accounts)
    if kind == "dynsec":
        before = hashes_in_dynsec(_text(out / DYNSEC_FILE))
        _write(out / DYNSEC_FILE, dynsec(accounts, hashed(passwords, before)))
    else:
        before = hashes_in_password_file(_text(out / ACCOUNTS_FILE))
        _write(out / ACCOUNTS_FILE, password_file(hashed(passwords, before)))
        _write(out / ACL_FILE, acl_file(accounts))
    _write(out / CONFIGURATION_FILE, broker_configuration(kind, find_plugin()))
    written = [DYNSEC_FILE] if kind == "dynsec" else [ACCOUNTS_FILE, ACL_FILE]
    files = " ".join(str(out / name) for name in written)
    click.echo(
        f"{len(accounts)} accounts are in {out}. On the broker's machine:\n"
        f"  sudo install -o mosquitto -g mosquitto -m 600 {files} /etc/mosquitto/\n"
        f"  sudo install -m 644 {out / CONFIGURATION_FILE} /etc/mosquitto/conf.d/\n"
        "  sudo systemctl restart mosquitto\n"
        f"Each user's password is in {out / SECRETS_FOLDER}, NAME{ENDING}. A node takes its "
        "own as the credential edged.mqtt.password, with mqtt.username set to its name."
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for each in text.split(",") if (name := each.strip()))


def _members(pools: str, nodes: tuple[str, ...]) -> dict[str, set[str]]:
    members = {}
    for each in _names(pools):
        pool, equals, some = each.partition("=")
        members[pool] = {name.strip() for name in some.split("+")} if equals else set(nodes)
    return members


def _root(text: str) -> str:
    try:
        return TypeAdapter[str](TopicRoot).validate_python(text)
    except ValidationError as error:
        raise ConfigError(f"--root{describe_validation(error)}") from None


def _passwords(folder: Path, accounts: tuple[User, ...]) -> dict[str, str]:
    """Each user's, from its file, which is written where there is none."""
    passwords = {}
    for account in accounts:
        file = folder / f"{account.name}{ENDING}"  # a name may be "..", which this is not
        password = _text(file).rstrip("\n")
        if password and file.stat().st_mode & OTHERS_MODE:
            raise ConfigError(f"{file} may be read by others; close it: chmod 600 {file}")
        if not password:
            password = new_password()
            _write(file, password)
        passwords[account.name] = password
    return passwords


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.new")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        partial.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from None
