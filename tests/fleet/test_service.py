"""The service under a real systemd, installed by the documents' own commands."""

import json
import re
from collections.abc import Iterator

import pytest
from tree import Machine

pytestmark = pytest.mark.campaign

ASK = "CREDENTIALS_DIRECTORY=/run/credentials/edged.service edged ask --json"
OWN_SETTINGS = "/etc/systemd/system/edged.service.d/test.conf"
PASSWORD = "a secret of the machine"
SECRET_WORDS = "mulberry pianoforte"


@pytest.fixture(autouse=True)
def service(machine: Machine) -> Iterator[None]:
    """Each test finds it as installed, and serving."""
    machine.run("systemctl reset-failed edged; systemctl start edged")
    until_it_serves(machine)
    yield
    machine.run(
        f"if test -e {OWN_SETTINGS}; then "
        f"rm {OWN_SETTINGS}; systemctl daemon-reload; systemctl stop edged; fi"
    )


def until_it_serves(machine: Machine) -> None:
    machine.wait_until("systemctl show edged -P StatusText | grep -q 'nominal, serving edged-tiny'")


def with_settings(machine: Machine, **environment: str) -> None:
    """Start it again with settings of the test's own."""
    lines = "".join(f'Environment="EDGED_{name}={value}"\n' for name, value in environment.items())
    machine.write(OWN_SETTINGS, f"[Service]\n{lines}")
    machine.run("systemctl daemon-reload; systemctl restart edged", check=False)


def answer(machine: Machine, prompt: str = "What can you do?", options: str = "") -> str:
    """What the node says to it."""
    # One that has just been started again may not be back on the bus yet.
    said = machine.wait_until(f"{ASK} {options} '{prompt}'")
    done = json.loads(said.splitlines()[-1])
    assert done["type"] == "done"
    text: str = done["text"]
    return text


def lines(machine: Machine, match: str) -> list[dict[str, str]]:
    """Of the journal."""
    said = machine.run(f"journalctl -u edged -o json --no-pager {match}", check=False)
    return [json.loads(line) for line in said.splitlines()]


def worker(machine: Machine) -> str:
    """Its process id."""
    return machine.wait_until("pgrep -x edged-engine").strip()


# It serves


def test_it_answers_with_the_model_under_all_its_limits(machine: Machine) -> None:
    assert answer(machine)


def test_its_status_says_what_it_does(machine: Machine) -> None:
    machine.wait_until(
        r"systemctl status edged --no-pager | grep 'Status: \"nominal, serving edged-tiny\S*; idle'"
    )


def test_it_is_ready_though_there_is_no_model(machine: Machine) -> None:
    with_settings(machine, MODEL__PATH="/nothing.gguf")
    machine.wait_until("systemctl show edged -P StatusText | grep -q 'model not served'")

    assert machine.show("ActiveState") == "active"


def test_settings_that_are_wrong_are_said_and_not_tried_again(machine: Machine) -> None:
    with_settings(machine, SPED="1")
    machine.wait_until("systemctl is-failed edged")

    assert machine.show("ExecMainStatus") == "2"
    assert "EDGED_SPED" in machine.journal()


# Its journal


def test_its_journal_has_the_fields_of_a_prompt(machine: Machine) -> None:
    answer(machine, options="--client hub")
    line = lines(machine, "EDGED_CLIENT=hub")[-1]

    assert line["EDGED_PROMPT_ID"]
    assert (line["PRIORITY"], line["LOGGER"]) == ("6", "edged.prompt_log")


def test_its_journal_has_no_words_of_prompts(machine: Machine) -> None:
    answer(machine, SECRET_WORDS)

    assert SECRET_WORDS not in machine.run("journalctl --no-pager -o export")


# Its end, and its beginning again


def test_it_outlives_its_worker(machine: Machine) -> None:
    daemon = machine.daemon
    machine.run(f"kill -KILL {worker(machine)}")

    assert answer(machine)
    assert machine.daemon == daemon


def test_it_is_started_again_after_a_kill(machine: Machine) -> None:
    before = int(machine.show("NRestarts"))
    machine.run(f"kill -KILL {machine.daemon}")
    machine.wait_until(f"test $(systemctl show edged -P NRestarts) = {before + 1}")

    assert answer(machine)


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_and_started_again(machine: Machine) -> None:
    before = int(machine.show("NRestarts"))
    machine.run(f"kill -STOP {machine.daemon}")
    machine.wait_until(f"test $(systemctl show edged -P NRestarts) = {before + 1}")

    assert answer(machine)
    assert "Watchdog timeout" in machine.run("journalctl -u edged --no-pager")


def test_a_worker_that_hangs_is_replaced_by_the_daemon(machine: Machine) -> None:
    daemon, before = machine.daemon, worker(machine)
    machine.run(f"kill -STOP {before}")

    assert answer(machine)
    assert worker(machine) != before
    assert machine.daemon == daemon


def test_a_reload_takes_new_settings_and_ends(machine: Machine) -> None:
    daemon = machine.daemon
    machine.run("sed -i 's/^drain_s = .*/drain_s = 21/' /etc/edged/edged.toml")
    machine.run("systemctl reload edged")
    machine.wait_until("journalctl -u edged --no-pager | grep -q 'settings changed: drain_s'")

    assert machine.show("ActiveState") == "active"
    assert machine.daemon == daemon


def test_a_stop_ends_what_is_being_answered(machine: Machine) -> None:
    with_settings(machine, ENGINE__NAME="echo", ENGINE__ECHO_STEP_MS="200")
    machine.wait_until("systemctl show edged -P StatusText | grep -q 'serving echo; idle'")
    said = machine.run(
        f"{ASK} 'as long as this' > /tmp/said & "
        "until systemctl show edged -P StatusText | grep -q '1 answered'; do sleep 0.1; done; "
        "systemctl stop edged; wait; cat /tmp/said"
    )

    assert json.loads(said.splitlines()[-1])["text"] == "as long as this"
    assert (machine.show("Result"), machine.show("ExecMainStatus")) == ("success", "0")


def test_a_stop_keeps_what_takes_longer(machine: Machine) -> None:
    with_settings(machine, ENGINE__NAME="echo", ENGINE__ECHO_STEP_MS="1000", DRAIN_S="1")
    machine.wait_until("systemctl show edged -P StatusText | grep -q 'serving echo; idle'")
    hub = f"-u hub -P {PASSWORD!r}"
    said = machine.run(
        f"mosquitto_sub {hub} -t edged/v1/cupboard/completion/hub/kept > /tmp/said & "
        f"mosquitto_pub {hub} -t edged/v1/cupboard/prompt/hub "
        """-m '{"prompt": "much", "id": "kept"}'; """
        "until grep -q delta /tmp/said; do sleep 0.1; done; systemctl restart edged; "
        """until grep '"type": "done"' /tmp/said; do sleep 0.1; done; kill %1"""
    )
    done = json.loads(said)

    assert (done["text"], done["restarts"]) == ("much", 1)


# Its rights


def test_it_has_no_right_that_it_was_not_given(machine: Machine) -> None:
    status = machine.run(f"cat /proc/{machine.daemon}/status")
    found = dict(re.findall(r"^(\w+):\t(\S+)", status, re.MULTILINE))

    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert {found[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {"0" * 16}


def test_its_directories_are_its_own(machine: Machine) -> None:
    said = machine.run("stat -c '%U %a %n' /var/lib/edged /var/cache/edged /run/edged")

    assert said.splitlines() == [
        "edged 700 /var/lib/edged",
        "edged 755 /var/cache/edged",
        "edged 700 /run/edged",
    ]


def inside(machine: Machine, command: str) -> str:
    """In the service's view of the files, as its user."""
    return machine.run(
        f"nsenter --target {machine.daemon} --mount "
        f"setpriv --reuid edged --regid edged --clear-groups {command}",
        check=False,
    )


def test_it_writes_nowhere_else(machine: Machine) -> None:
    places = inside(
        machine, "find / -xdev -type d -writable -not -path '/proc/*' -not -path '/dev/*'"
    )

    assert {place for place in places.split() if not place.startswith("/var/lib/edged")} <= {
        *("/var/cache/edged", "/run/edged", "/tmp", "/var/tmp", "/run/lock")
    }


def test_the_worker_is_ended_before_the_daemon(machine: Machine) -> None:
    """A host that cannot lower a score itself (CAP_SYS_RESOURCE) leaves the daemon's at 0."""
    score = "cat /proc/{}/oom_score_adj"

    assert machine.show("OOMScoreAdjust") == "-200"
    assert int(machine.run(score.format(machine.daemon))) <= 0
    assert machine.run(score.format(worker(machine))) == "800\n"


def test_its_credentials_are_for_it_alone(machine: Machine) -> None:
    """Its own connection, with that password, is what all other tests rest on."""
    secret = "/run/credentials/edged.service/edged.mqtt.password"

    assert inside(machine, f"cat {secret}") == PASSWORD
    assert machine.run(f"setpriv --reuid nobody --clear-groups cat {secret}", check=False) == ""
    assert machine.run("setpriv --reuid nobody --clear-groups ls /var/lib/edged", check=False) == ""


# The clock of the cores


def test_a_cap_on_the_clock_does_not_outlive_a_kill(machine: Machine) -> None:
    policy = "/sys/devices/system/cpu/cpufreq/policy0"
    before = int(machine.show("NRestarts"))
    machine.run(
        f"echo '2400000 {policy}/scaling_max_freq' > /run/edged/clock; "
        f"echo 1500000 > {policy}/scaling_max_freq; "
        f"kill -KILL {machine.daemon}"
    )
    machine.wait_until(f"test $(systemctl show edged -P NRestarts) = {before + 1}")

    assert machine.run(f"cat {policy}/scaling_max_freq") == "2400000\n"


def test_it_may_cap_the_clock_and_nothing_else_of_the_machine(machine: Machine) -> None:
    writable = inside(machine, "find /sys/devices/system/cpu /proc/sys -type f -writable")

    assert writable.split() == ["/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"]
