"""The service where memory can really run out, and the machine really start again."""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import Machine, copied, documented_installation
from vm import ENGINES, GUEST_PACKAGES, Kernel, VirtualMachine, debian, what_a_vm_lacks, wheels_for

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
SETTINGS = """\
state_dir = "/var/lib/edged"
node = "cupboard"
[model]
store = "/var/cache/edged/models"
"""
BROKER = """\
listener 1883 127.0.0.1
allow_anonymous true
"""
LIMIT = "/etc/systemd/system/edged.service.d/test.conf"
LIMIT_MIB = 512
MORE_MIB = 12
"""Than the limit: a third of what the worker holds."""
PATIENCE = "TimeoutStartSec=15min\nWatchdogSec=5min\n"
"""An emulated processor is some ten times slower than any board, and here nobody hangs."""
GROUP = "/sys/fs/cgroup/system.slice/edged.service"
NEIGHBOUR = f"""\
import mmap, os, time
with open("{GROUP}/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
def killed():
    with open("{GROUP}/memory.events") as file:
        return [line for line in file if line.startswith("oom_kill ")]
held, before = [], killed()
while True:
    with open("/run/neighbour") as file:
        wanted_mib, pause_s = map(float, file.read().split())
    if len(held) < wanted_mib and killed() == before:
        held.append(mmap.mmap(-1, 1 << 20))
        held[-1].write(b"x" * (1 << 20))
        time.sleep(pause_s)
    elif len(held) > wanted_mib:
        held.pop().close()
    else:
        time.sleep(0.2)
"""
"""It lives in the service's group, and takes memory as it is told: MiB, and seconds after each.

No more once somebody was killed for it.
"""


def install(
    machine: Machine, wheels: Path, suite: str, python: str, architecture: str = "amd64"
) -> None:
    """Make its tree, with edged installed as the documents say."""
    wheels_for(wheels, ROOT, architecture, python)
    copied(debian(suite, architecture, GUEST_PACKAGES), machine.folder)
    machine.write("/etc/edged/edged.toml", SETTINGS)
    machine.write("/etc/mosquitto/conf.d/edged.conf", BROKER)
    machine.write("/usr/local/lib/neighbour.py", NEIGHBOUR)
    machine.write(LIMIT, f"[Service]\nMemoryMax={LIMIT_MIB}M\n{PATIENCE}")
    script = documented_installation(ROOT).replace("llama-cpp,systemd", ENGINES[architecture])
    machine.install(
        "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n"
        f"{script}\nrm {Path(LIMIT).parent}/memory.conf\nsystemctl enable edged",
        f"--bind-ro={wheels}:/wheels",
    )


@contextlib.contextmanager
def running(
    folder: Path,
    suite: str,
    python: str,
    architecture: str = "amd64",
    package: str = "linux-image-cloud-amd64",
) -> Iterator[VirtualMachine]:
    """A machine of this suite, with its own kernel, as long as the tests need it."""
    if (missing := what_a_vm_lacks(architecture)) is not None:
        pytest.skip(missing)
    kernel = Kernel.of(folder, package, suite, architecture)
    machine = VirtualMachine(folder / "tree", kernel, architecture)
    install(machine, folder / "wheels", suite, python, architecture)
    try:
        machine.boot()
        yield machine
    finally:
        machine.power_off()
        shutil.rmtree(folder)


@pytest.fixture(scope="class")
def bookworm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """systemd 252, which Raspberry Pi OS 12 has, too."""
    with running(tmp_path_factory.mktemp("bookworm"), "bookworm", "3.11") as machine:
        yield machine


@pytest.fixture(scope="class")
def trixie(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """systemd 257, which tells services of pressure."""
    with running(tmp_path_factory.mktemp("trixie"), "trixie", "3.13") as machine:
        yield machine


@pytest.fixture(scope="class")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """A processor like a Raspberry Pi 5's, and like there pages of 16 KiB."""
    folder = tmp_path_factory.mktemp("arm")
    with running(folder, "trixie", "3.13", "arm64", "linux-image-arm64-16k") as machine:
        yield machine


def level(machine: VirtualMachine) -> str:
    """As the broker keeps it."""
    said = json.loads(machine.run("mosquitto_sub -W 60 -C 1 -t edged/v1/cupboard/state"))
    level: str = said["level"]
    return level


def until_it_serves(machine: VirtualMachine) -> None:
    machine.wait_until("systemctl show edged -P StatusText | grep -q 'nominal, serving edged-tiny'")


def answer(machine: VirtualMachine) -> str:
    """What the node says."""
    said = machine.run("edged ask --json 'What can you do?'")
    done = json.loads(said.splitlines()[-1])
    assert done["type"] == "done", done
    text: str = done["text"]
    return text


def events(machine: VirtualMachine) -> dict[str, int]:
    """What the service's group has met: its limit (max), an end by the kernel (oom_kill), …"""
    lines = machine.run(f"cat {GROUP}/memory.events").splitlines()
    return {name: int(count) for name, count in map(str.split, lines)}


def more_than_is_left_mib(machine: VirtualMachine) -> int:
    """Beside the worker it would be more than the limit, without the worker less."""
    lines = machine.run(f"cat {GROUP}/memory.stat").splitlines()
    stat = {name: int(count) for name, count in map(str.split, lines)}
    held_bytes = sum(stat[name] for name in ("anon", "shmem", "kernel"))
    return LIMIT_MIB + MORE_MIB - (held_bytes - stat["slab_reclaimable"]) // 2**20


def journal(machine: VirtualMachine) -> str:
    """All that this start of the service has said, and what the kernel and systemd said of it."""
    return machine.run(
        "id=$(systemctl show edged -P InvocationID); "
        "journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID=$id + INVOCATION_ID=$id"
    )


def neighbour(machine: VirtualMachine, mib: int, pause_s: float) -> None:
    """Let one in the service's group take so much, and no more."""
    machine.write("/run/neighbour", f"{mib} {pause_s}\n")
    machine.run(
        "systemctl is-active -q neighbour || systemd-run -q --unit=neighbour --collect "
        "python3 /usr/local/lib/neighbour.py"
    )


@pytest.fixture
def limited(bookworm: VirtualMachine) -> Iterator[VirtualMachine]:
    """It serves, within little."""
    bookworm.write(LIMIT, f"[Service]\nMemoryMax={LIMIT_MIB}M\n")
    bookworm.run("systemctl daemon-reload; systemctl restart edged")
    until_it_serves(bookworm)
    yield bookworm
    bookworm.run(
        "systemctl stop neighbour 2>/dev/null || true; "
        f"rm {LIMIT}; systemctl daemon-reload; systemctl restart edged"
    )


def worker(machine: VirtualMachine) -> str:
    """Its process id."""
    return machine.wait_until("pgrep -x edged-engine").strip()


class TestLeftAlone:
    @pytest.fixture(autouse=True)
    def service(self, bookworm: VirtualMachine) -> Iterator[None]:
        """Each test finds it serving, with all of its memory for itself."""
        until_it_serves(bookworm)
        yield
        bookworm.run("systemctl stop neighbour 2>/dev/null || true")

    def test_it_gives_memory_back_before_its_limit_is_met(self, bookworm: VirtualMachine) -> None:
        daemon = bookworm.daemon
        neighbour(bookworm, more_than_is_left_mib(bookworm), pause_s=0.2)
        bookworm.wait_until("! pgrep -x edged-engine", "its worker is ended")
        reached = level(bookworm)
        neighbour(bookworm, 0, pause_s=0)
        met = events(bookworm)
        until_it_serves(bookworm)
        said = journal(bookworm)

        assert reached in ("throttled", "paused")
        assert "trimmed (was nominal)" in said
        assert "(memory.max of /system.slice/edged.service)" in said
        assert (met["oom"], met["oom_kill"]) == (0, 0)
        assert bookworm.daemon == daemon
        assert answer(bookworm)

    def test_the_kernel_ends_the_worker_and_not_the_daemon(self, bookworm: VirtualMachine) -> None:
        daemon, before = bookworm.daemon, worker(bookworm)
        restarts = bookworm.show("NRestarts")
        # Its governor sees nothing of it, as where memory is taken within half a second.
        bookworm.run(f"kill -STOP {daemon}")
        neighbour(bookworm, more_than_is_left_mib(bookworm), pause_s=0)
        bookworm.wait_until(f"grep 'oom_kill [1-9]' {GROUP}/memory.events")
        bookworm.run(f"kill -CONT {daemon}")
        neighbour(bookworm, 0, pause_s=0)
        bookworm.wait_until(f"test $(pgrep -x edged-engine) != {before}")
        until_it_serves(bookworm)
        killed = bookworm.run("journalctl -k -b -o cat | grep -o 'Killed process [0-9]* ([^)]*)'")

        assert events(bookworm)["oom_kill"] >= 1
        assert set(re.findall(r"\((.*?)\)", killed)) == {"edged-engine"}
        assert (bookworm.daemon, bookworm.show("NRestarts")) == (daemon, restarts)
        assert answer(bookworm)

    def test_the_kernel_holds_it_to_what_the_plan_says(self, bookworm: VirtualMachine) -> None:
        bookworm.run(f"edged plan --systemd-dropin > {LIMIT}")
        bookworm.run(f"echo '{PATIENCE}' >> {LIMIT}; systemctl daemon-reload")
        said = bookworm.run(f"sed -n 's/^MemoryMax=//p' {LIMIT}")

        limit = bookworm.run(f"cat {GROUP}/memory.max")

        assert int(limit) == int(said) // 4096 * 4096

    def test_it_answers_after_a_reboot_without_a_hand(self, bookworm: VirtualMachine) -> None:
        bookworm.reboot()
        until_it_serves(bookworm)

        assert answer(bookworm)

    def test_an_accepted_prompt_survives_a_power_cut(self, bookworm: VirtualMachine) -> None:
        prompt = json.dumps({"id": "promised", "prompt": "What can you do?"})
        reply = bookworm.run(
            "kill -STOP $(pgrep -x edged-engine)\n"
            f"(sleep 3; mosquitto_pub -q 1 -t edged/v1/cupboard/prompt -m '{prompt}') &\n"
            "mosquitto_sub -q 1 -C 1 -W 100 -t edged/v1/cupboard/completion/anonymous/promised"
        )
        assert json.loads(reply)["type"] == "accepted"
        bookworm.reboot("echo b > /proc/sysrq-trigger")

        bookworm.wait_until(
            "journalctl -b -u edged -o cat | grep 'prompt promised of anonymous: .* stop'"
        )


class TestSystemdTellsOfPressure:
    def test_the_daemon_waits_for_the_word_of_the_kernel(self, trixie: VirtualMachine) -> None:
        until_it_serves(trixie)
        asked = trixie.run(f"tr '\\0' '\\n' < /proc/{trixie.daemon}/environ")
        opened = trixie.run(f"readlink /proc/{trixie.daemon}/fd/*", check=False)

        assert f"MEMORY_PRESSURE_WATCH={GROUP}/memory.pressure" in asked.splitlines()
        assert f"{GROUP}/memory.pressure" in opened.splitlines()

    def test_it_acts_on_pressure_that_the_average_does_not_show(
        self, trixie: VirtualMachine
    ) -> None:
        until_it_serves(trixie)
        time.sleep(25.0)  # after a load an average tells of the load
        neighbour(trixie, 200, pause_s=0.05)
        # Between two looks of the governor a limit comes and goes, and the neighbour waits for it.
        trixie.run(
            f"edged='{trixie.daemon} {worker(trixie)}'; kill -STOP $edged\n"
            "neighbour=$(systemctl show neighbour -P MainPID)\n"
            f"echo 0 > {GROUP}/memory.high &\n"
            f"until grep -q '^high [1-9]' {GROUP}/memory.events; do :; done; sleep 0.3\n"
            f"kill -KILL $neighbour; echo max > {GROUP}/memory.high; kill -KILL $! || true\n"
            "kill -CONT $edged"
        )
        said = trixie.wait_until("journalctl -b -u edged -o cat | grep 'trimmed (was nominal)'")
        average = trixie.run(f"head -1 {GROUP}/memory.pressure")

        assert "work waited for it" in said
        assert float(average.split()[1].removeprefix("avg10=")) < 10.0


class TestArm:
    def test_the_demo_answers(self, tmp_path: Path) -> None:
        """In a tree of that architecture, each program translated as it runs."""
        if (missing := what_a_vm_lacks("arm64")) is not None:
            pytest.skip(missing)
        machine = Machine(tmp_path / "tree", "arm")
        install(machine, tmp_path / "wheels", "bookworm", "3.11", "arm64")
        machine.install("edged demo > /root/said; uname -m >> /root/said")
        said = (machine.folder / "root/said").read_text()
        shutil.rmtree(tmp_path)

        assert "on llama_cpp" in said
        assert "I can look after the devices in your home" in said
        assert said.endswith("aarch64\n")

    def test_it_answers_with_pages_of_16_kib(self, arm: VirtualMachine) -> None:
        until_it_serves(arm)

        assert arm.run("getconf PAGESIZE") == "16384\n"
        assert answer(arm)
