"""The service where memory can really run out, and the machine really start again."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import copied, documented_installation
from vm import GUEST_PACKAGES, Kernel, VirtualMachine, debian, what_a_vm_lacks, wheels_for

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
GROUP = "/sys/fs/cgroup/system.slice/edged.service"
NEIGHBOUR = f"""\
import mmap, os, time
with open("{GROUP}/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
held = []
while True:
    with open("/run/neighbour") as file:
        wanted_mib, pause_s = map(float, file.read().split())
    if len(held) < wanted_mib:
        held.append(mmap.mmap(-1, 1 << 20))
        held[-1].write(b"x" * (1 << 20))
        time.sleep(pause_s)
    elif len(held) > wanted_mib:
        held.pop().close()
    else:
        time.sleep(0.2)
"""
"""It lives in the service's group, and takes memory as it is told: MiB, and seconds after each."""


def made(
    folder: Path, suite: str, python: str, kernel: Kernel, architecture: str = "amd64"
) -> VirtualMachine:
    """A machine that edged was installed on as the documents say, not yet booted."""
    wheels_for(folder / "wheels", ROOT, architecture, python)
    tree = copied(debian(suite, architecture, GUEST_PACKAGES), folder / suite)
    machine = VirtualMachine(tree, kernel, architecture)
    machine.write("/etc/edged/edged.toml", SETTINGS)
    machine.write("/etc/mosquitto/conf.d/edged.conf", BROKER)
    machine.write("/usr/local/lib/neighbour.py", NEIGHBOUR)
    script = documented_installation(ROOT).replace("llama-cpp,systemd", "llama-cpp")
    machine.install(
        "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n"
        f"{script}\nrm {Path(LIMIT).parent}/memory.conf\nsystemctl enable edged",
        f"--bind-ro={folder / 'wheels'}:/wheels",
    )
    return machine


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    if (missing := what_a_vm_lacks()) is not None:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("kernel")
    return Kernel.of(folder, "linux-image-cloud-amd64", "bookworm", "amd64")


@pytest.fixture(scope="module")
def bookworm(tmp_path_factory: pytest.TempPathFactory, kernel: Kernel) -> Iterator[VirtualMachine]:
    """systemd 252, Python 3.11."""
    machine = made(tmp_path_factory.mktemp("bookworm"), "bookworm", "3.11", kernel)
    machine.boot()
    yield machine
    machine.power_off()


def state(machine: VirtualMachine) -> dict[str, str]:
    """What the broker keeps of it."""
    said = machine.run("mosquitto_sub -W 60 -C 1 -t edged/v1/cupboard/state")
    body: dict[str, str] = json.loads(said)
    return body


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


def of_group(machine: VirtualMachine, name: str) -> int:
    return int(machine.run(f"cat {GROUP}/memory.{name}"))


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


def test_the_kernel_holds_it_to_what_the_plan_says(bookworm: VirtualMachine) -> None:
    bookworm.run(f"edged plan --systemd-dropin > {LIMIT}")
    bookworm.run("systemctl daemon-reload; systemctl restart edged")
    until_it_serves(bookworm)
    said = bookworm.run(f"sed -n 's/^MemoryMax=//p' {LIMIT}")

    assert of_group(bookworm, "max") == int(said) // 4096 * 4096
    assert answer(bookworm)


def test_it_gives_memory_back_before_its_limit_is_met(limited: VirtualMachine) -> None:
    daemon = limited.daemon
    neighbour(limited, LIMIT_MIB, pause_s=0.2)
    limited.wait_until("! pgrep -x edged-engine", "the worker is ended")
    neighbour(limited, 0, pause_s=0)
    met = events(limited)
    until_it_serves(limited)
    said = journal(limited)

    assert "trimmed (was nominal)" in said
    assert "were left (edged.service)" in said
    assert (met["oom"], met["oom_kill"]) == (0, 0)
    assert limited.daemon == daemon
    assert answer(limited)
