import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import Machine, bookworm, copied, documented_installation, what_is_missing, wheels

ROOT = Path(__file__).parents[2]
PASSWORD = "a secret of the machine"
SETTINGS = """\
state_dir = "/var/lib/edged"
node = "cupboard"
drain_s = 20
[model]
store = "/var/cache/edged/models"
[mqtt]
host = "127.0.0.1"
username = "cupboard"
tls = false
"""
BROKER = """\
listener 1883 127.0.0.1
allow_anonymous false
password_file /etc/mosquitto/passwords
"""
CLOCK = {
    "edged-clock.tmpfiles": "/etc/tmpfiles.d/edged-clock.conf",
    "drop-ins/clock.conf": "/etc/systemd/system/edged.service.d/clock.conf",
}
QUICK = """\
[Service]
WatchdogSec=3
RestartSec=100ms
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that edged was installed on as the documents say, with a broker that asks."""
    if (missing := what_is_missing()) is not None:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("fleet")
    wheels(folder / "wheels", ROOT)
    machine = Machine(copied(bookworm(), folder / "tree"), "cupboard")
    from_files = "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n"
    machine.install(
        f"{from_files}{documented_installation(ROOT)}", f"--bind-ro={folder / 'wheels'}:/wheels"
    )
    machine.write("/etc/edged/edged.toml", SETTINGS)
    machine.write("/etc/edged/credentials/edged.mqtt.password", PASSWORD, mode=0o600)
    drop_in = (ROOT / "systemd/drop-ins/credentials.conf").read_text()
    machine.write("/etc/systemd/system/edged.service.d/credentials.conf", drop_in)
    for source, target in CLOCK.items():
        machine.write(target, (ROOT / "systemd" / source).read_text())
    machine.write("/etc/systemd/system/edged.service.d/quick.conf", QUICK)
    machine.write("/etc/mosquitto/conf.d/edged.conf", BROKER)
    machine.install(
        f"mosquitto_passwd -b -c /etc/mosquitto/passwords cupboard {PASSWORD!r}\n"
        f"mosquitto_passwd -b /etc/mosquitto/passwords hub {PASSWORD!r}\n"
        "chown mosquitto /etc/mosquitto/passwords\n"
        "systemctl enable edged"
    )
    yield machine
    shutil.rmtree(folder / "tree")


@pytest.fixture(scope="session")
def machine(installed: Machine) -> Iterator[Machine]:
    """It runs, and has a clock that can be set, as boards have."""
    policy = "/srv/cpu/cpufreq/policy0"
    installed.write(f"{policy}/cpuinfo_min_freq", "600000\n")
    installed.write(f"{policy}/scaling_max_freq", "2400000\n")
    installed.boot()
    installed.run("mount --bind /srv/cpu /sys/devices/system/cpu; systemctl restart edged")
    yield installed
    installed.power_off()
