"""A Debian of our own in a folder, with a real systemd in it: systemd-nspawn, without a network."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

PATIENCE_S = 60.0
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "kmod", "netbase", "libpam-systemd"),
    *("python3", "python3-venv", "libgomp1", "libsystemd0", "mosquitto"),
    *("mosquitto-clients", "util-linux"),
)
"""Of the tree; libgomp1 is what llama.cpp's wheel wants beside the C library."""
NEEDED = ("mmdebstrap", "systemd-nspawn", "nsenter")
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


def what_is_missing() -> str | None:
    """Why no tree can be had here; ``None`` where one can."""
    if os.geteuid() != 0:
        return "needs root, for systemd-nspawn"
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)} (apt install mmdebstrap systemd-container)"
    if not SOURCES.exists():
        return f"needs {SOURCES}, for mmdebstrap"
    if sys.version_info[:2] != (3, 11):
        return "needs Python 3.11, which is bookworm's, for wheels that both can use"
    return None


def bookworm(*more: str) -> Path:
    """A tree to copy from, with ``more`` packages; made once, some 20 s, and kept in the cache."""
    packages = ",".join((*PACKAGES, *more))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged-tests"
    tree = cache / f"bookworm-{zlib.crc32(packages.replace(',', ' ').encode()):x}"
    if tree.exists():
        return tree
    cache.mkdir(parents=True, exist_ok=True)
    making = tree.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root"),
            *("--dpkgopt=force-unsafe-io", f"--include={packages}"),
            *("bookworm", str(making), str(SOURCES)),
        ],
        check=True,
    )
    making.rename(tree)
    return tree


def copied(tree: Path, folder: Path) -> Path:
    """Another of the same, with its devices and owners."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(tree), str(folder)], check=True)
    return folder


def wheels(folder: Path, root: Path) -> None:
    """edged and all that it needs to serve, as files; what pip has built before is in its cache."""
    # An engine that tools/setup has compiled before.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged/wheels"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--constraint", str(root / "constraints.txt"), "--wheel-dir", str(folder)),
            *(f"--find-links={built.parent}" for built in cache.glob("*/*.whl")),
            f"{root}[llama-cpp,systemd]",
        ],
        check=True,
    )


def documented_installation(root: Path) -> str:
    """The commands of docs/systemd.md that need no booted machine."""
    section = (root / "docs/systemd.md").read_text().split("## Install\n")[1].split("\n## ")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    commands = lines[: next(i for i, line in enumerate(lines) if line.startswith("state_dir"))]
    return "\n".join(commands)


class Machine:
    """One that boots from a folder, without a network or in a namespace that has one."""

    patience_s = PATIENCE_S

    def __init__(self, folder: Path, name: str, namespace: str | None = None) -> None:
        self.folder = folder
        self._network = (
            f"--network-namespace-path=/run/netns/{namespace}" if namespace else "--private-network"
        )
        self._name = name
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init: int | None = None

    def install(self, script: str, *options: str) -> None:
        """Run a script in it before it boots. ``options`` are of systemd-nspawn."""
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe"]
        subprocess.run(
            [*command, "-D", str(self.folder), *options, "/bin/bash", "-euc", script],
            stdin=subprocess.DEVNULL,
            check=True,
        )

    def boot(self, *options: str) -> None:
        """Until its services have started."""
        with (self.folder.parent / f"{self._name}.log").open("ab") as log:
            self._nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"),
                    *(self._network, "--console=pipe", "-M", self._name),
                    "--capability=CAP_SYS_RESOURCE",  # else no oom_score_adj can be lowered
                    *("-D", str(self.folder), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until_s = time.monotonic() + PATIENCE_S
        while self._init is None:
            assert time.monotonic() < until_s, f"{self._name} does not boot"
            time.sleep(0.05)
            self._init = self._child_of(self._nspawn.pid)
        while "running" not in self.run("systemctl is-system-running", check=False):
            assert time.monotonic() < until_s, self.run("systemctl --failed", check=False)
            time.sleep(0.1)

    def _child_of(self, pid: int) -> int | None:
        """nspawn's only child, once it has become the init of its own."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n":
                return int(children[0])
        return None

    def run(self, script: str, *, check: bool = True, input: str = "") -> str:  # noqa: A002
        """What a root shell in it prints."""
        done = subprocess.run(
            [
                *("nsenter", f"--target={self._init}", "--mount", "--uts", "--ipc", "--net"),
                *("--pid", "--root", "--wd", "/bin/bash", "-euc", script),
            ],
            input=input,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE_S,
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            check=False,
            start_new_session=True,  # what is killed there is never us
        )
        if check:
            assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file in it, while it runs or before."""
        file = self.folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def wait_until(self, script: str, what: str = "") -> str:
        """Until a script succeeds; returns what it printed."""
        until_s = time.monotonic() + self.patience_s
        while True:
            said = self.run(f"{script} && echo +yes", check=False)
            if said.endswith("+yes\n"):
                return said.removesuffix("+yes\n")
            assert time.monotonic() < until_s, f"{what or script}: {self.journal()}"
            time.sleep(0.2)

    def journal(self) -> str:
        """What edged's service has said."""
        return self.run("journalctl -u edged --no-pager -o short-monotonic | tail -40", check=False)

    @property
    def daemon(self) -> int:
        """Its process id, as the machine counts."""
        pid = int(self.show("MainPID"))
        assert pid > 1, self.journal()
        return pid

    def show(self, name: str) -> str:
        """Of edged's service."""
        return self.run(f"systemctl show edged -P {shlex.quote(name)}").strip()

    def pull_the_plug(self) -> None:
        """Its end, at once."""
        if self._nspawn is not None and self._init is not None:
            os.kill(self._init, signal.SIGKILL)
            self._nspawn.wait(PATIENCE_S)

    def power_off(self) -> None:
        """And wait until it is."""
        if self._nspawn is None:
            return
        self.run("systemctl poweroff", check=False)
        try:
            self._nspawn.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
