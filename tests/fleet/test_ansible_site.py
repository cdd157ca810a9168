"""site.yml on a fresh host that is broker and node: the short form of the campaigns."""

from collections.abc import Iterator

import pytest
from fleet import Fleet, Play, asked, fleet, secret_of, what_ansible_lacks
from tree import what_is_missing

MISSING = what_is_missing() or what_ansible_lacks("ansible-playbook", "ssh-keygen", "ip")
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

GROUPS = {"edged_broker": {"cupboard": {}}, "edged_nodes": {"cupboard": {}}}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("site"), ["cupboard"]) as made:
        made.hosts["cupboard"].write("/boot/firmware/cmdline.txt", "console=tty1 rootwait\n")
        made.inventory(
            GROUPS,
            edged_profile="generic-x86_64",
            board_boot_parameters=["cgroup_enable=memory", "psi=1"],
            board_clock=True,
            board_reboot=False,
            edged_gate_prompts=1,
        )
        yield made


@pytest.fixture(scope="module")
def checked(host: Fleet) -> tuple[Play, str]:
    """Check mode, where nothing is yet, and what it left there."""
    play = host.play("site", "--check", "--diff")
    left = "ls -d /opt/edged /etc/edged /etc/mosquitto/conf.d/edged.conf; getent passwd edged"
    return play, host.hosts["cupboard"].run(left, check=False)


@pytest.fixture(scope="module")
def converged(host: Fleet, checked: tuple[Play, str]) -> Play:
    return host.converge("--diff")


def test_check_mode_of_a_new_host_fails_nowhere_and_does_nothing(
    checked: tuple[Play, str],
) -> None:
    play, left = checked

    assert play.code == 0, play.end
    assert play.recap["cupboard"]["changed"] > 0
    assert left == ""


def test_a_second_run_changes_nothing(host: Fleet, converged: Play) -> None:
    again = host.converge()

    assert again.recap["cupboard"]["changed"] == 0, again.changed


def test_the_node_answers_the_controller(host: Fleet, converged: Play) -> None:
    assert host.answer("cupboard")["type"] == "done"


def test_the_pool_answers_the_controller(host: Fleet, converged: Play) -> None:
    found = asked(host.asking("edged/v1/pool/fleet"))

    assert found["ends"].keys() == {"done"}


def test_the_board_has_its_boot_parameters(host: Fleet, converged: Play) -> None:
    said = host.hosts["cupboard"].run("cat /boot/firmware/cmdline.txt")

    assert said == "console=tty1 rootwait cgroup_enable=memory psi=1\n"


def test_check_mode_tells_what_a_run_will_change(host: Fleet, converged: Play) -> None:
    new = ("--tags=configure", "-e", '{"edged_settings": {"sampling": {"max_tokens": 99}}}')
    foretold = host.play("site", "--check", *new)
    done = host.converge(*new)

    assert foretold.changed == done.changed
    assert done.recap["cupboard"]["changed"] == 2


def test_no_secret_is_in_any_output(host: Fleet, converged: Play) -> None:
    said = (host.folder / "plays.log").read_text()

    assert secret_of("cupboard") not in said
    assert secret_of("hub") not in said


def test_secrets_are_for_their_owners(host: Fleet, converged: Play) -> None:
    said = host.hosts["cupboard"].run(
        "stat -c '%U %a' /etc/edged/credentials/edged.mqtt.password "
        "/etc/mosquitto/dynamic-security.json /etc/mosquitto/certs/server.key; ls -d /run/edged-b*",
        check=False,
    )

    assert said.splitlines() == ["root 600", "mosquitto 600", "mosquitto 600"]
