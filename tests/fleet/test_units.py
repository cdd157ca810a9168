"""The service's files as systemd reads them, without one that runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "edged.service"
DROP_INS = sorted((SYSTEMD / "drop-ins").glob("*.conf"))
OLDEST = 249
"""Of JetPack 6."""
SINCE = {
    **dict.fromkeys(("PrivateUsers", "ProtectControlGroups", "ProtectKernelModules"), 232),
    **dict.fromkeys(("ProtectKernelTunables", "RestrictNamespaces"), 232),
    **dict.fromkeys(("CacheDirectory", "CacheDirectoryMode", "LockPersonality"), 235),
    **dict.fromkeys(("RuntimeDirectoryMode", "StateDirectory", "StateDirectoryMode"), 235),
    "PrivateMounts": 239,
    **dict.fromkeys(("ProtectHostname", "RestrictSUIDSGID"), 242),
    "OOMPolicy": 243,
    "ProtectKernelLogs": 244,
    "ProtectClock": 245,
    **dict.fromkeys(("LoadCredential", "ProtectProc"), 247),
    "ManagedOOMPreference": 248,
}
"""In which version of systemd a directive came (systemd's NEWS); others are from before 232."""
BEFORE_232 = {
    *("After", "Description", "StartLimitIntervalSec", "WantedBy", "Wants"),
    *("AmbientCapabilities", "CapabilityBoundingSet", "DeviceAllow", "DevicePolicy", "ExecReload"),
    *("ExecStart", "ExecStartPre", "ExecStopPost", "Group", "KillMode", "LimitCORE"),
    *("MemoryDenyWriteExecute", "NoNewPrivileges", "OOMScoreAdjust", "PrivateDevices"),
    *("PrivateTmp", "ProtectHome", "ProtectSystem", "ReadWritePaths", "RemoveIPC", "Restart"),
    *("RestartPreventExitStatus", "RestartSec", "RestrictAddressFamilies", "RestrictRealtime"),
    *("RuntimeDirectory", "SupplementaryGroups", "SystemCallArchitectures", "TimeoutStartSec"),
    *("SystemCallErrorNumber", "SystemCallFilter", "TimeoutStopSec", "Type", "UMask", "User"),
    "WatchdogSec",
}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def installed(folder: Path, drop_in: Path | None = None) -> Path:
    """The unit as it would lie in /etc, with programs that are there on this machine, too."""
    there = "/bin/true"
    programs = r"/opt/edged/current/bin/\w+|/usr/bin/nvidia-modprobe|/usr/bin/systemd-tmpfiles"
    unit = folder / UNIT.name
    unit.write_text(re.sub(programs, there, UNIT.read_text()))
    if drop_in is not None:
        drop_ins = folder / f"{UNIT.name}.d"
        drop_ins.mkdir()
        (drop_ins / drop_in.name).write_text(re.sub(programs, there, drop_in.read_text()))
    return unit


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


@needs_systemd
@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda path: path and path.stem)
def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path, drop_in: Path | None) -> None:
    run = analyze("verify", str(installed(tmp_path, drop_in)))

    assert (run.returncode, run.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("drop_in", "tenths"),
    [(None, 15), ("clock", 15), ("credentials", 15), ("nvidia", 25), ("jetson", 25)],
)
def test_the_unit_is_exposed_to_little(tmp_path: Path, drop_in: str | None, tenths: int) -> None:
    unit = installed(tmp_path, drop_in and SYSTEMD / "drop-ins" / f"{drop_in}.conf")
    run = analyze("security", "--offline=yes", f"--threshold={tenths}", "--no-pager", str(unit))

    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("file", [UNIT, *DROP_INS], ids=lambda path: path.stem)
def test_no_directive_is_newer_than_the_oldest_systemd(file: Path) -> None:
    used = set(re.findall(r"^([A-Z]\w+)=", file.read_text(), re.MULTILINE))

    assert used - BEFORE_232 - {name for name, since in SINCE.items() if since <= OLDEST} == set()


@pytest.mark.parametrize("file", [UNIT, *DROP_INS], ids=lambda path: path.stem)
def test_whatever_is_set_is_explained(file: Path) -> None:
    """Above it in its paragraph stands a comment."""
    unexplained = []
    for paragraph in file.read_text().split("\n\n"):
        has_comment = False
        for line in paragraph.splitlines():
            has_comment = has_comment or line.startswith("#")
            speaks_for_itself = line.startswith(("[", "Description=", "WantedBy="))
            if not has_comment and not speaks_for_itself:
                unexplained.append(line)

    assert unexplained == []


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers")
def test_the_user_is_made_without_a_shell(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", str(SYSTEMD / "edged.sysusers")], check=True
    )
    (line,) = [
        line for line in (tmp_path / "etc/passwd").read_text().splitlines() if "edged" in line
    ]
    name, _, uid, *_, home, shell = line.split(":")

    assert (name, home, shell) == ("edged", "/var/lib/edged", "/usr/sbin/nologin")
    assert int(uid) < 1000
