"""Hosts with SSH in networks of their own, and Ansible on the controller's side of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tree import Machine, bookworm, copied, wheels

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "ansible"
PACKAGES = ("openssh-server", "openssl", "python3-apt")
CONTROLLER = "10.79.0.1"
PATIENCE_S = 900.0
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def what_ansible_lacks(*programs: str) -> str | None:
    """Which of the programs are not here; ``None`` where all are."""
    missing = [name for name in programs if shutil.which(name, path=PATH) is None]
    return f"needs {', '.join(missing)} (pip install 'edged[fleet]')" if missing else None


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@dataclass(frozen=True)
class Play:
    """What a run of a playbook came to."""

    code: int
    output: str

    @property
    def end(self) -> str:
        """What is worth reading where it failed."""
        return self.output[-4000:]

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Of each host: ok, changed, unreachable, failed, …"""
        found = re.findall(r"^(\S+)\s+: ((?:\w+=\d+\s*)+)$", self.output, re.MULTILINE)
        return {
            host: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in found
        }

    @property
    def changed(self) -> dict[str, list[str]]:
        """Of each host: what changed, by the names of tasks and handlers."""
        changed = defaultdict(list)
        task = ""
        for line in self.output.splitlines():
            if found := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\]", line):
                task = found[1]
            elif (found := re.match(r"changed: \[(\S+?)(?: ->.*)?\]", line)) and (
                task not in changed[found[1]]
            ):
                changed[found[1]].append(task)
        return dict(changed)


@dataclass
class Fleet:
    """Machines by name, a folder with an inventory, and the wheels that it serves."""

    folder: Path
    hosts: dict[str, Machine] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def controller(self) -> str:
        """Its network namespace."""
        return f"edged-{os.getpid()}"

    def inventory(self, groups: Mapping[str, Mapping[str, Any]], **variables: Any) -> None:
        """Write it: groups of hosts with variables of each."""
        everybody = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "id"),
            "ansible_python_interpreter": "/usr/bin/python3",
            "edged_mqtt_ca_file": str(self.folder / "edged-ca.crt"),
            "mosquitto_ca_file": str(self.folder / "edged-ca.crt"),
            "mosquitto_clients": ["hub"],
            "mosquitto_passwords": {name: secret_of(name) for name in (*self.hosts, "hub")},
            "edged_mqtt_password": "{{ mosquitto_passwords[inventory_hostname] }}",
            "edged_mqtt_host": "{{ hostvars[groups['edged_broker'][0]].ansible_host }}",
            "edged_pools": ["fleet"],
            **variables,
        }
        hosts = {
            group: {
                "hosts": {
                    name: {"ansible_host": self.addresses[name], **own}
                    for name, own in members.items()
                }
            }
            for group, members in groups.items()
        }
        text = json.dumps({"all": {"vars": everybody, "children": hosts}}, indent=2)
        (self.folder / "hosts.json").write_text(text)

    def command(self, *words: str) -> list[str]:
        """Something that is run on the controller's side."""
        return ["ip", "netns", "exec", self.controller, *words]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            # Fleets have the same addresses, and must not share their connections.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "ssh"),
            "ANSIBLE_INVENTORY": str(self.folder / "hosts.json"),
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s "
            "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        }

    def start(self, playbook: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("ansible-playbook", f"edged.edge.{playbook}", *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            start_new_session=True,
            cwd=self.folder,
        )

    def play(self, playbook: str, *options: str) -> Play:
        """Run a playbook of the collection to its end."""
        process = self.start(playbook, *options)
        output, _ = process.communicate(timeout=PATIENCE_S)
        with (self.folder / "plays.log").open("a") as log:
            log.write(output)
        return Play(process.returncode, output)

    def converge(self, *options: str) -> Play:
        play = self.play("site", *options)
        assert play.code == 0, play.end
        return play

    def killed_at(self, task: str, playbook: str = "site", *options: str) -> None:
        """Run it until a task begins, and kill it then, with all that it has started."""
        seen = ""
        with self.start(playbook, *options) as process:
            assert process.stdout is not None
            for line in process.stdout:
                seen += line
                if f"{task}]" in line:
                    os.killpg(process.pid, signal.SIGKILL)
                    return
        raise AssertionError(f"there was no task {task!r}: {seen[-4000:]}")

    def edged(self, *words: str) -> str:
        """What a command of edged says on the controller, as the client hub."""
        secrets = self.folder / "credentials"
        secrets.mkdir(mode=0o700, exist_ok=True)
        (secrets / "edged.mqtt.password").write_text(secret_of("hub"))
        broker = json.loads((self.folder / "hosts.json").read_text())["all"]["children"]
        host = next(iter(broker["edged_broker"]["hosts"].values()))["ansible_host"]
        (self.folder / "edged.toml").write_text(
            f'[mqtt]\nhost = "{host}"\nusername = "hub"\nca_file = "{self.folder}/edged-ca.crt"\n'
        )
        own = {"CREDENTIALS_DIRECTORY": str(secrets), "PYTHONPATH": str(ROOT)}
        config = ("--config", str(self.folder / "edged.toml"))
        done = subprocess.run(
            self.command(sys.executable, "-m", "edged", *config, *words),
            capture_output=True,
            text=True,
            env=self.environment | own,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def answer(self, node: str) -> dict[str, Any]:
        """The last message of an answer of this node's."""
        said = self.edged("ask", "--json", "--node", node, "What can you do?")
        last: dict[str, Any] = json.loads(said.splitlines()[-1])
        return last

    def asking(self, *topics: str) -> subprocess.Popen[str]:
        """A client that keeps asking below these topics; see ``asking.py``."""
        host = self.addresses[next(iter(self.hosts))]
        return subprocess.Popen(
            self.command(
                *(sys.executable, str(Path(__file__).with_name("asking.py"))),
                *(host, str(self.folder / "edged-ca.crt"), *topics),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment | {"ASKING_PASSWORD": secret_of("hub")},
        )


def secret_of(name: str) -> str:
    """A password that no other text is likely to hold."""
    return f"secret-{name}-pianoforte"


def asked(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it found, once it was told to come to an end."""
    output, _ = process.communicate("end\n", timeout=PATIENCE_S)
    found: dict[str, Any] = json.loads(output)
    return found


@contextmanager
def fleet(folder: Path, names: Sequence[str]) -> Iterator[Fleet]:
    """These hosts, fresh and running, and wheels of edged as it is."""
    made = Fleet(folder)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")], check=True
    )
    version = re.search(r'"(.+)"', (ROOT / "edged/__init__.py").read_text().splitlines()[-1])
    assert version is not None
    wheels(folder / "wheels" / version[1] / os.uname().machine, ROOT)
    collections = folder / "collections/ansible_collections/edged"
    collections.mkdir(parents=True)
    (collections / "edge").symlink_to(COLLECTION)
    ip("netns", "add", made.controller)
    try:
        ip("-n", made.controller, "link", "add", "hosts", "type", "bridge")
        ip("-n", made.controller, "link", "set", "hosts", "up")
        ip("-n", made.controller, "link", "set", "lo", "up")
        ip("-n", made.controller, "address", "add", f"{CONTROLLER}/24", "dev", "hosts")
        for number, name in enumerate(names, start=10):
            _start(made, name, f"10.79.0.{number}")
        yield made
    finally:
        for machine in made.hosts.values():
            machine.pull_the_plug()
        for name in made.hosts:
            subprocess.run(["ip", "netns", "del", f"{made.controller}-{name}"], check=False)
        ip("netns", "del", made.controller)
        for name in made.hosts:
            shutil.rmtree(folder / name)


def _start(made: Fleet, name: str, address: str) -> None:
    """One host: its tree, its network, its SSH."""
    namespace = f"{made.controller}-{name}"
    machine = Machine(copied(bookworm(*PACKAGES), made.folder / name), name, namespace)
    made.hosts[name] = machine
    made.addresses[name] = address
    ip("netns", "add", namespace)
    link = f"to-{name}"[:15]
    ip("-n", made.controller, "link", "add", link, "type", "veth", "peer", "host0")
    ip("-n", made.controller, "link", "set", "host0", "netns", namespace)
    ip("-n", made.controller, "link", "set", link, "master", "hosts", "up")
    ip("-n", namespace, "address", "add", f"{address}/24", "dev", "host0")
    ip("-n", namespace, "link", "set", "host0", "up")
    ip("-n", namespace, "link", "set", "lo", "up")
    machine.write("/root/.ssh/authorized_keys", (made.folder / "id.pub").read_text(), mode=0o600)
    (machine.folder / "root/.ssh").chmod(0o700)
    machine.write("/etc/hostname", f"{name}\n")
    machine.boot()
    machine.wait_until("systemctl is-active ssh", "SSH does not start")
