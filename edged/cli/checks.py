"""The checks of ``edged doctor``, by name, and how they are run.

Those of the machine are ``edged.hardware.health*``; here are those that need the settings,
the broker, the engines or the models. A check yields what it finds, one thing at a time;
whatever it raises becomes a finding, too.
"""

import contextlib
import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from edged.cli import checks_bus, checks_engine, checks_model, room
from edged.engine.planning import engine_name, offload_is_built
from edged.errors import ConfigError, EdgedError
from edged.hardware import health, health_board, health_disk
from edged.hardware.detect import Detection, detect
from edged.hardware.health import Finding, Outcome, failure, not_applicable, ok, warning
from edged.hardware.profile import read_profile, survey
from edged.hardware.schema import Profile
from edged.models.plan import mib
from edged.settings import Settings, config_path, load_settings
from edged.spool.running import running_pid

LIMIT_S: Final = 20.0
"""How long one check may take: a disk or a name server that does not answer hangs for minutes."""
SEVERITY: Final[Mapping[Outcome, int]] = {
    "not applicable": 0,
    "ok": 0,
    "warning": 1,
    "failure": 2,
}
"""An outcome's exit code."""
_NO_SETTINGS: Final = "cannot be checked before the settings can be read"


class _NoSettings(Exception):
    """A check needs the settings, which are wrong."""


class Node:
    """What is examined; each part is read when the first check asks for it."""

    def __init__(self, config: Path | None, root: Path = Path("/")) -> None:
        self.config = config
        self.root = root
        self.settings_error: str | None = None
        self._settings: Settings | None = None
        try:
            self._settings = load_settings(config)
        except ConfigError as error:
            self.settings_error = str(error)
        except Exception as error:  # noqa: BLE001 (a home folder that cannot be found, and so on)
            self.settings_error = f"settings: {type(error).__name__}: {error}"

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            raise _NoSettings
        return self._settings

    @cached_property
    def detection(self) -> Detection:
        """What this machine is, whatever the settings say. Raises ``EdgedError``."""
        return detect(self.root)

    @property
    def profile(self) -> Profile | None:
        """The one in force, as far as it is known."""
        name = self._settings.profile if self._settings is not None else None
        with contextlib.suppress(EdgedError):
            return self.detection.profile if name is None else read_profile(name)
        return None

    @property
    def engine(self) -> str:
        """The one that will serve; the one that would by default where settings are wrong."""
        if self._settings is not None:
            return engine_name(self._settings)
        return engine_name(Settings.model_construct())

    @cached_property
    def llama_cpp(self) -> checks_engine.Probe:
        return checks_engine.probe("llama_cpp")

    @cached_property
    def daemon(self) -> room.Daemon:
        return room.daemon_of(self.root, running_pid(self.settings.state_dir))


def examine(node: Node) -> Iterator[tuple[str, Finding]]:
    """Every check in turn, with its name."""
    for name, check in CHECKS.items():
        for finding in guarded(check, node):
            yield name, finding


def guarded(
    check: Callable[[Node], Iterator[Finding]], node: Node, limit_s: float = LIMIT_S
) -> list[Finding]:
    """What a check finds; never raises, and takes no longer than ``limit_s``."""
    findings: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            for finding in check(node):
                findings.put(finding)
        except _NoSettings:
            findings.put(not_applicable(_NO_SETTINGS))
        except EdgedError as error:
            findings.put(failure(str(error)))
        except PermissionError as error:
            findings.put(failure(f"{error.filename} may not be looked at by this user"))
        except Exception as error:  # noqa: BLE001 (whatever is broken is told, not raised)
            findings.put(failure(f"the check itself failed: {type(error).__name__}: {error}"))
        findings.put(None)

    # One that hangs for good must not keep the command from ending.
    threading.Thread(target=run, daemon=True).start()
    try:
        return list(iter(lambda: findings.get(timeout=limit_s), None))
    except queue.Empty:
        return [failure(f"the check did not end within {limit_s:g} s")]


def settings(node: Node) -> Iterator[Finding]:
    """Whether every source of the settings can be read and is right."""
    if node.settings_error is not None:
        yield failure(node.settings_error, "correct it, then: edged config check")
        return
    path = config_path(node.config)
    read = f"read from {path} and" if path.exists() else f"there is no {path}, only"
    yield ok(f"valid; {read} the environment")


def credentials(node: Node) -> Iterator[Finding]:
    """Whether secrets are complete, readable by us and by nobody else."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    yield from checks_bus.credential_files(Path(folder) if folder else None, node.root)
    if node.settings_error is None:
        yield from checks_bus.user_and_password(node.settings.mqtt)


def broker(node: Node) -> Iterator[Finding]:
    """Whether the broker lets us in."""
    yield checks_bus.broker(node.settings.mqtt)


def engine(node: Node) -> Iterator[Finding]:
    """Whether the engines work here, and were built for this processor."""
    name = node.engine
    if name == "echo":
        yield not_applicable("the echo engine needs no library")
        return
    for each in ("llama_cpp", "ctransformers"):
        found = node.llama_cpp if each == "llama_cpp" else checks_engine.probe(each)
        remedy = checks_engine.rebuild(found, node.profile)
        yield from checks_engine.judge(found, node.root, remedy, serves=each == name)


def gpu(node: Node) -> Iterator[Finding]:
    """Whether a GPU that is here can be used, by us and by the engine."""
    has_nvml = importlib.util.find_spec("pynvml") is not None
    found = health_board.gpu(node.root, node.detection.machine, has_nvml=has_nvml)
    yield from found
    if any(each.outcome != "ok" for each in found) or node.engine != "llama_cpp":
        return
    if node.profile is not None and node.profile.gpu is None:
        yield warning(
            f"the profile {node.profile.name} knows of no GPU, so edged serves on the processor",
            "write a profile with [gpu] and its memory: docs/hw-profiles.md",
        )
    elif node.llama_cpp.sees_gpu:
        yield ok("llama.cpp uses it")
    elif offload_is_built():
        yield warning(
            "llama.cpp was built for CUDA but finds no GPU, so it serves on the processor",
            "see what this says: nvidia-smi",
        )
    else:
        yield warning(
            "llama.cpp was built without CUDA, so it serves on the processor",
            checks_engine.rebuild(node.llama_cpp, node.profile, cuda=True),
        )


def model(node: Node) -> Iterator[Finding]:
    """What would be served now, and whether the memory there is holds it."""
    settings = node.settings
    if settings.engine.name == "echo":
        yield not_applicable("the echo engine has no weights")
        return
    yield from checks_model.damaged(settings)
    yield checks_model.served(settings, node.daemon)


def profile(node: Node) -> Iterator[Finding]:
    """Whether the hardware profile in force is this machine's."""
    for error in survey().broken.values():
        yield warning(str(error), "correct that line, then: edged profiles list")
    detection = node.detection
    found, total_bytes = detection.profile, detection.machine.memory_bytes
    wanted = None if node.settings_error else node.settings.profile
    if wanted is None or wanted == found.name:
        others = ("read from the machine", "left out")
        evidence = [each for each in detection.evidence if not each.startswith(others)]
        yield ok(f"{found.name}: {found.description}, known by {'; '.join(evidence)}")
        return
    chosen = read_profile(wanted)
    if not chosen.match:
        yield ok(f"{wanted}, as set; it has no rules to compare this machine with ({found.name})")
        return
    said = "" if chosen.memory.total_bytes is None else f" ({mib(chosen.memory.total_bytes)})"
    yield warning(
        f"profile is set to {wanted}{said}, but this machine is {found.name} ({mib(total_bytes)})",
        f'write profile = "{found.name}" in the settings, or take profile out of them',
    )


def disk(node: Node) -> Iterator[Finding]:
    """Whether there is room for state and models."""
    state_dir, store = node.settings.state_dir, node.settings.model.store
    yield health_disk.state_disk(health_disk.disk_of(state_dir, node.root))
    has_models = any(store.glob("*.gguf")) or node.settings.model.path is not None
    disk = health_disk.disk_of(store, node.root)
    yield health_disk.store_disk(disk, has_models=has_models)


def permissions(node: Node) -> Iterator[Finding]:
    """Whether this user may read and write what the daemon must."""
    state_dir, store = node.settings.state_dir, node.settings.model.store
    who = "root may do so; the user of the service may not" if os.geteuid() == 0 else "by this user"
    near = health_disk.nearest(state_dir)
    if near == state_dir.absolute() and not near.is_dir():
        yield failure(f"{state_dir} is no folder", "set state_dir to a folder")
    elif os.access(near, os.W_OK | os.X_OK):
        made = "can be written" if near == state_dir.absolute() else "can be made"
        yield ok(f"{state_dir} {made} ({who})")
    else:
        yield failure(f"{state_dir} cannot be written by this user", _to_write(state_dir, near))
    weights = [path for path in (node.settings.model.path, *store.glob("*.gguf")) if path]
    closed = [path for path in weights if path.exists() and not os.access(path, os.R_OK)]
    if store.exists() and not os.access(store, os.R_OK | os.X_OK):
        yield failure(f"{store} cannot be read by this user", f"sudo chmod a+rx {store}")
    elif closed:
        yield failure(
            f"{closed[0]} cannot be read by this user (1 of {len(closed)})",
            f"sudo chmod a+r {closed[0]}",
        )
    else:
        yield ok(f"{store} {'can be read' if store.exists() else 'is not there yet'}")
    yield health_board.clock_cap(node.root)


def _to_write(state_dir: Path, near: Path) -> str:
    made = f'sudo mkdir -p {state_dir} && sudo chown "$(id -un)" {state_dir}'
    if near != state_dir.absolute() or near.stat().st_uid == 0:
        return made
    return (
        f"if edged runs as another user, run this as that one: sudo -u '#{near.stat().st_uid}' "
        f"edged doctor; else: {made}"
    )


def daemon(node: Node) -> Iterator[Finding]:
    """Whether one is running already."""
    running = node.daemon
    state_dir = node.settings.state_dir
    if running.pid is None:
        yield ok(f"none uses {state_dir} now")
    elif running.workers:
        yield ok(f"process {running.pid} runs; its worker holds {mib(running.held_bytes)}")
    else:
        yield ok(f"process {running.pid} runs, without a worker at the moment")


def swap(node: Node) -> Iterator[Finding]:
    """Whether edged's memory is where it is fast."""
    ours_bytes = 0 if node.settings_error else node.daemon.swapped_bytes
    yield health.swap(node.root, ours_bytes)


def _clock(node: Node) -> Finding:
    synchronised = health.kernel_clock_is_synchronised()
    return health.clock(node.root, datetime.now().astimezone(), synchronised=synchronised)


def thermal(node: Node) -> Iterator[Finding]:
    """Whether the temperature can be watched."""
    yield from health_board.thermal(node.root, node.profile)


CHECKS: Final[Mapping[str, Callable[[Node], Iterator[Finding]]]] = {
    "settings": settings,
    "credentials": credentials,
    "broker": broker,
    "engine": engine,
    "gpu": gpu,
    "model": model,
    "profile": profile,
    "cgroup": lambda node: iter([health.memory_cgroup(node.root)]),
    "pressure": lambda node: iter([health.pressure(node.root)]),
    "thermal": thermal,
    "power": lambda node: iter(health_board.power(node.root)),
    "clock": lambda node: iter([_clock(node)]),
    "disk": disk,
    "permissions": permissions,
    "swap": swap,
    "daemon": daemon,
}
