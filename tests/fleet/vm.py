"""A Debian with a kernel of its own: QEMU without KVM, so memory can be limited and run out.

    debian (mmdebstrap) ─► a tree, to install in ─► image (mke2fs) ─► VirtualMachine (QEMU, SSH)

Everything is emulated, some ten times slower than this machine, and needs no rights but root's.
"""

import contextlib
import lzma
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tree import PACKAGES, SOURCES, Machine

BOOT_S: Final = 900.0
IMAGE_MIB: Final = 2500
GUEST_PACKAGES: Final = (*PACKAGES, "openssh-server")
MODULES: Final = (
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net", "rng-core"),
    *("virtio-rng", "crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4"),
)
"""Of QEMU's devices, and what these need; those that a kernel has built in are no files."""
INIT: Final = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
until [ -b /dev/vda ] && [ -e /sys/class/net/eth0 ] && grep -q ext4 /proc/filesystems; do
  # Some need others.
  for module in /modules/*; do insmod $module 2>/dev/null; done
done
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
mount -t ext4 /dev/vda /root
mount --move /dev /root/dev
umount /proc /sys
exec switch_root /root /sbin/init
"""
QEMU: Final = {
    "amd64": ("qemu-system-x86_64", "-machine", "q35", "-cpu", "max"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "cortex-a76"),
}
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
CONSOLES: Final = {"amd64": "ttyS0", "arm64": "ttyAMA0"}


def what_a_vm_lacks(architecture: str = "amd64") -> str | None:
    """Why none can be had here; ``None`` where one can."""
    if os.geteuid() != 0:
        return "needs root, for the machine's tree"
    programs = ["mmdebstrap", "systemd-nspawn", QEMU[architecture][0], "cpio", "mke2fs", "ssh"]
    is_foreign = platform.machine() != MACHINES[architecture]
    if is_foreign:
        programs += ["arch-test", f"{MACHINES[architecture]}-linux-gnu-g++"]
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        return (
            f"needs {', '.join(missing)} (apt install mmdebstrap systemd-container cpio e2fsprogs "
            "openssh-client qemu-system-x86 qemu-system-arm qemu-user-static arch-test "
            "crossbuild-essential-arm64)"
        )
    if is_foreign and subprocess.run(["arch-test", architecture], check=False).returncode:
        return f"needs a kernel that runs {architecture} programs (/usr/lib/binfmt.d/qemu-*.conf)"
    return None if SOURCES.exists() else f"needs {SOURCES}, for mmdebstrap"


def debian(
    suite: str, architecture: str, packages: tuple[str, ...], variant: str = "minbase"
) -> Path:
    """A tree to copy from; made once, and kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged-tests"
    words = " ".join((variant, *packages))
    tree = cache / f"{suite}-{architecture}-{zlib.crc32(words.encode()):x}"
    if tree.exists():
        return tree
    cache.mkdir(parents=True, exist_ok=True)
    making = tree.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", f"--variant={variant}", "--mode=root"),
            *("--dpkgopt=force-unsafe-io", f"--architectures={architecture}"),
            *(f"--include={','.join(packages)}", suite, str(making), "-"),
        ],
        input=SOURCES.read_text().replace("bookworm", suite).encode(),
        check=True,
    )
    making.rename(tree)
    return tree


ENGINES: Final = {"amd64": "ctransformers", "arm64": "llama-cpp"}
"""For amd64 the one that need not be compiled for what QEMU's processor can do."""


def wheels_for(folder: Path, root: Path, architecture: str, python: str) -> None:
    """edged and all that it needs to serve, for a machine of another kind than this one.

    llama.cpp is compiled once, for every processor of the architecture; that takes some minutes.
    """
    name = MACHINES[architecture]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged/wheels/every"
    if ENGINES[architecture] == "llama-cpp":
        subprocess.run(
            [str(root / "tools/engine_wheel"), name, str(cache)],
            env={**os.environ, "PYTHON": sys.executable},
            check=True,
        )
    pip = (sys.executable, "-m", "pip")
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(root)], check=True)
    subprocess.run(
        [
            *(*pip, "download", "-q", "--only-binary=:all:", f"--python-version={python}"),
            *(f"--platform=manylinux_2_{glibc}_{name}" for glibc in (17, 27, 28)),
            *(f"--platform=manylinux2014_{name}", f"--platform=linux_{name}"),
            *("--constraint", str(root / "constraints.txt"), f"--find-links={cache}"),
            *(f"--find-links={folder}", "-d", str(folder), f"edged[{ENGINES[architecture]}]"),
        ],
        check=True,
    )


@dataclass(frozen=True)
class Kernel:
    """What QEMU starts: a kernel, and a first file system that mounts the disk."""

    image: Path
    initrd: Path

    @classmethod
    def of(cls, folder: Path, package: str, suite: str, architecture: str) -> "Kernel":
        """Debian's, with no more than the modules for QEMU's devices."""
        tree = debian(suite, architecture, (package, "busybox-static"), variant="extract")
        (image,) = (tree / "boot").glob("vmlinuz-*")
        root = folder / "initrd"
        for name in ("bin", "dev", "modules", "proc", "root", "sys"):
            (root / name).mkdir(parents=True)
        (busybox,) = (path for path in tree.glob("**/bin/busybox") if not path.is_symlink())
        shutil.copy(busybox, root / "bin/busybox")
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        files = {file.name.split(".ko")[0]: file for file in tree.glob("**/modules/*/**/*.ko*")}
        for name in MODULES:
            if (file := files.get(name)) is not None:
                data = file.read_bytes()
                data = lzma.decompress(data) if file.suffix == ".xz" else data
                (root / f"modules/{name}.ko").write_bytes(data)
        initrd = folder / "initrd.cpio"
        with initrd.open("wb") as file:
            subprocess.run(
                ["/bin/sh", "-c", "find . | cpio --quiet -o -H newc"],
                cwd=root,
                stdout=file,
                check=True,
            )
        return cls(image, initrd)


class VirtualMachine(Machine):
    """One that boots from an image of a folder, in which everything is installed before."""

    patience_s = 600.0

    def __init__(self, folder: Path, kernel: Kernel, architecture: str = "amd64") -> None:
        super().__init__(folder, folder.name)
        self._kernel = kernel
        self._architecture = architecture
        self._qemu: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._key = folder.with_suffix(".key")

    def boot(self, *options: str) -> None:
        """Until its services have started. ``options`` are QEMU's."""
        keygen = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key))
        subprocess.run(keygen, check=True)
        self.write("/root/.ssh/authorized_keys", self._key.with_suffix(".key.pub").read_text())
        self.write("/etc/fstab", "")
        # It looks for nothing, for a minute.
        (self.folder / "etc/systemd/system/e2scrub_reap.service").symlink_to("/dev/null")
        image = self.folder.with_suffix(".img")
        subprocess.run(
            [
                *("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(self.folder), str(image)),
                f"{IMAGE_MIB}M",
            ],
            check=True,
        )
        console = CONSOLES[self._architecture]
        with self.folder.with_suffix(".log").open("ab") as log:
            self._qemu = subprocess.Popen(
                [
                    *QEMU[self._architecture],
                    *("-accel", "tcg,tb-size=512", "-smp", "1", "-m", "1024", "-nodefaults"),
                    *("-display", "none", "-serial", f"file:{image.with_suffix('.console')}"),
                    *("-kernel", str(self._kernel.image), "-initrd", str(self._kernel.initrd)),
                    "-append",
                    f"console={console} quiet panic=-1 psi=1 systemd.getty_auto=0",
                    *("-drive", f"file={image},if=none,id=disk,format=raw,cache=unsafe"),
                    *("-device", "virtio-blk-pci,drive=disk"),
                    *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22"),
                    *("-device", "virtio-net-pci,netdev=net,romfile="),
                    *("-device", "virtio-rng-pci", *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.until_up()

    def until_up(self, after: str = "") -> str:
        """Until a boot other than ``after`` is complete; returns which boot it is."""
        until_s = time.monotonic() + BOOT_S
        while True:
            assert self._qemu is not None
            assert self._qemu.poll() is None, "QEMU has ended"
            assert time.monotonic() < until_s, "the machine does not come up"
            with contextlib.suppress(subprocess.TimeoutExpired):
                said = self.run(
                    "cat /proc/sys/kernel/random/boot_id; systemctl is-system-running",
                    check=False,
                    timeout_s=60.0,
                ).split()
                if len(said) == 2 and said[0] != after and said[1] in ("running", "degraded"):
                    return said[0]
            time.sleep(10.0)

    def wait_until(self, script: str, what: str = "") -> str:
        """Until a script succeeds; it is tried by the machine itself, which spares it."""
        patience_s = int(self.patience_s)
        said = self.run(
            f"end=$((SECONDS + {patience_s})); until said=$({script}); do "
            'test $SECONDS -lt $end || exit 1; sleep 2; done; echo "$said"; echo +yes',
            check=False,
            timeout_s=patience_s + 60,
        )
        assert said.endswith("+yes\n"), f"{what or script}: {self.journal()}"
        return said.removesuffix("+yes\n")

    @property
    def _ssh(self) -> list[str]:
        """One connection for all, which takes a second or more to make."""
        return [
            *("ssh", "-F", "none", "-q", "-i", str(self._key), "-p", str(self._port)),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=yes"),
            *("-o", f"ControlPath={self._key.with_suffix('.%C')}", "-o", "ConnectTimeout=60"),
            "root@127.0.0.1",
        ]

    def run(
        self,
        script: str,
        *,
        check: bool = True,
        input: str = "",  # noqa: A002
        timeout_s: float | None = None,
    ) -> str:
        """What a root shell in it prints, over SSH."""
        done = subprocess.run(
            [*self._ssh, f"LANG=C.UTF-8 /bin/bash --norc -euc {shlex.quote(script)}"],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout_s or 2 * self.patience_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file in it, while it runs or before."""
        if self._qemu is None:
            super().write(path, text, mode)
        else:
            quoted = shlex.quote(path)
            self.run(f"install -D -m {mode:o} /dev/stdin {quoted}", input=text)

    def reboot(self, how: str = "systemctl reboot") -> None:
        """And wait until it is up again."""
        before = self.run("cat /proc/sys/kernel/random/boot_id").strip()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run(f"({how}) >/dev/null 2>&1 &", check=False, timeout_s=30.0)
        self._hang_up()
        self.until_up(after=before)

    def _hang_up(self) -> None:
        """Who is rebooted does not tell the other end."""
        subprocess.run([*self._ssh[:-1], "-O", "exit", self._ssh[-1]], check=False)

    def power_off(self) -> None:
        """At once: nothing of it is kept."""
        if self._qemu is not None:
            self._hang_up()
            self._qemu.send_signal(signal.SIGTERM)
            self._qemu.wait(60.0)
