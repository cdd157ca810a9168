"""An upgrade and the way back, by the commands of docs/upgrade.md."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tree import Machine

import edged

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
OLD, NEW = edged.__version__, f"{edged.__version__}.post1"
SOURCES = (
    *("edged", "hw_profiles", "share", "systemd", "LICENSE", "README.md", "pyproject.toml"),
    "constraints.txt",
)
SLOW = "/etc/systemd/system/edged.service.d/slow.conf"
PASSWORD = "a secret of the machine"
ASK = "CREDENTIALS_DIRECTORY=/run/credentials/edged.service edged ask --json"
FROM_FILES = "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n"


def commands(heading: str) -> str:
    """What the document says to type, as root types it in a tree without sudo."""
    document = (ROOT / "docs/upgrade.md").read_text()
    section = document.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    script = "\n".join(lines).replace("sudo -u edged", "runuser -u edged --")
    return FROM_FILES + re.sub(r"\bNEW\b", NEW, re.sub(r"\bOLD\b", OLD, script))


@pytest.fixture(scope="module")
def offered(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The machine, which can have the new version from files."""
    folder = tmp_path_factory.mktemp("new")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    package = folder / "edged/__init__.py"
    package.write_text(package.read_text().replace(f'"{OLD}"', f'"{NEW}"'))
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir")
    subprocess.run([*pip, str(machine.folder / "wheels"), str(folder)], check=True)
    for wheel in (machine.folder.parent / "wheels").glob("*.whl"):
        shutil.copy(wheel, machine.folder / "wheels")
    return machine


def serves(machine: Machine, version: str) -> None:
    machine.wait_until("systemctl show edged -P StatusText | grep -q 'nominal, serving edged-tiny'")
    assert machine.run("edged version").splitlines()[0] == f"edged {version}"
    done = json.loads(machine.run(f"{ASK} 'What can you do?'").splitlines()[-1])
    assert done["type"] == "done"


def test_an_upgrade_serves_the_new_version_and_a_roll_back_the_old_one(offered: Machine) -> None:
    offered.run("systemctl reset-failed edged; systemctl start edged")
    serves(offered, OLD)

    offered.run(commands("Upgrade"))
    serves(offered, NEW)

    offered.run(commands("Roll back"))
    serves(offered, OLD)


def test_a_prompt_that_the_old_version_began_is_answered_by_the_new_one(offered: Machine) -> None:
    install, _, switch = commands("Upgrade").partition("\nln")
    offered.run(install)
    slow = "ENGINE__NAME=echo EDGED_ENGINE__ECHO_STEP_MS=300 EDGED_DRAIN_S=1"
    offered.write(SLOW, f"[Service]\nEnvironment=EDGED_{slow}\n")
    offered.run("systemctl daemon-reload; systemctl restart edged")
    offered.wait_until("systemctl show edged -P StatusText | grep -q 'serving echo; idle'")
    hub, words = f"-u hub -P {PASSWORD!r}", " ".join("abcdefghijklmnopqrstuvwxyz")
    offered.run(
        f"(mosquitto_sub {hub} -t edged/v1/cupboard/completion/hub/kept > /tmp/said 2>&1 &) ; "
        f"mosquitto_pub {hub} -t edged/v1/cupboard/prompt/hub "
        f"""-m '{{"prompt": "{words}", "id": "kept"}}'; """
        "until grep -q delta /tmp/said; do sleep 0.1; done"
    )
    offered.run(f"ln{switch}")
    offered.wait_until("""grep -q '"type": "done"' /tmp/said""")
    done = json.loads(offered.run("pkill mosquitto_sub; tail -n 1 /tmp/said"))
    version = offered.run("edged version").splitlines()[0]
    offered.run(f"rm {SLOW}; systemctl daemon-reload\n{commands('Roll back')}")

    assert (done["text"], done["restarts"], version) == (words, 1, f"edged {NEW}")
