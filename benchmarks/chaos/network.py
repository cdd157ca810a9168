"""A network of the daemon's own: a namespace with one cable, which can be cut or lose packets."""

import os
import random
import shutil
import subprocess
from collections.abc import Sequence

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing() -> str | None:
    """Why there can be no such network here."""
    if os.geteuid() != 0:
        return "needs root"
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(program, path=_PATH) is None:
            return f"needs {program} (package {package})"
    name = f"edged-probe-{os.getpid()}"
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "netns", "exec", name, "nft", *_LOSS[0].split())
    except subprocess.CalledProcessError as error:
        return f"the kernel refuses: {error.stderr.strip().splitlines()[0]}"
    finally:
        subprocess.run([_which("ip"), "netns", "del", name], check=False, capture_output=True)
    return None


_TABLE = f"edged_chaos_{os.getpid()}"
_LOSS = (
    f"add table inet {_TABLE}",
    f"add chain inet {_TABLE} in {{{{ type filter hook input priority 0 ; }}}}",
    f'add rule inet {_TABLE} in iifname "{{device}}" numgen random mod 100 < {{percent}} drop',
)


class Network:
    """Commands run in it; ``address`` is ours, at the near end of the cable."""

    def __init__(self) -> None:
        self._name = f"edged-chaos-{os.getpid()}"
        self._near, self._far = f"edc{os.getpid() % 10**7}a", f"edc{os.getpid() % 10**7}b"
        # Of the addresses that are set apart for benchmarks (RFC 2544).
        net = f"198.18.{random.randrange(256)}.{4 * random.randrange(64)}"
        first, last = net.rsplit(".", 1)
        self.address = f"{first}.{int(last) + 1}"
        self._their_address = f"{first}.{int(last) + 2}"

    def make(self) -> None:
        """Raises ``subprocess.CalledProcessError``."""
        _run("ip", "netns", "add", self._name)
        _run(*f"ip link add {self._near} type veth peer name {self._far}".split())
        _run("ip", "link", "set", self._far, "netns", self._name)
        _run("ip", "addr", "add", f"{self.address}/30", "dev", self._near)
        _run("ip", "link", "set", self._near, "up")
        self._inside("ip", "addr", "add", f"{self._their_address}/30", "dev", self._far)
        self._inside("ip", "link", "set", self._far, "up")
        self._inside("ip", "link", "set", "lo", "up")

    def close(self) -> None:
        """The cable goes with the namespace."""
        self.lose_nothing()
        subprocess.run([_which("ip"), "link", "del", self._near], check=False, capture_output=True)
        subprocess.run([_which("ip"), "netns", "del", self._name], check=False, capture_output=True)

    def command(self, *arguments: str) -> list[str]:
        """What runs a command in it."""
        return [_which("nsenter"), f"--net=/run/netns/{self._name}", *arguments]

    def cut(self) -> None:
        """Nothing passes, and nobody is told."""
        _run("ip", "link", "set", self._near, "down")

    def mend(self) -> None:
        """Everything passes."""
        _run("ip", "link", "set", self._near, "up")

    def lose(self, percent: int) -> None:
        """Of the packets in each direction, at random."""
        for line in _LOSS:
            _run("nft", *line.format(device=self._near, percent=percent).split())
            self._inside("nft", *line.format(device=self._far, percent=percent).split())

    def lose_nothing(self) -> None:
        """Also where nothing was lost."""
        delete = (_which("nft"), "delete", "table", "inet", _TABLE)
        for command in (delete, self.command(*delete)):
            subprocess.run(command, check=False, capture_output=True)

    def _inside(self, *arguments: str) -> None:
        _run(*self.command(*arguments))


def _which(program: str) -> str:
    return shutil.which(program, path=_PATH) or program


def _run(program: str, *arguments: str) -> None:
    command: Sequence[str] = (_which(program), *arguments)
    subprocess.run(command, check=True, capture_output=True, text=True)
