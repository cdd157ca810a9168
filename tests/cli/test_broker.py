"""``edged broker acl``: what it writes, and what it leaves alone."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edged.cli.main import cli
from edged.errors import ConfigError
from edged.transports.mosquitto import hashes_in_dynsec, hashes_in_password_file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "broker"


def acl(out: Path, *arguments: str, nodes: str = "attic", clients: str = "kitchen,hub") -> Result:
    return CliRunner().invoke(
        cli,
        ["broker", "acl", "--nodes", nodes, "--clients", clients, "--out", str(out), *arguments],
        catch_exceptions=False,
    )


def contents(folder: Path) -> dict[str, str]:
    return {str(file): file.read_text() for file in folder.rglob("*") if file.is_file()}


def secrets(out: Path) -> dict[str, str]:
    return {file.stem: file.read_text() for file in (out / "secrets").iterdir()}


def test_every_node_and_client_has_an_account_and_a_password_that_fits(out: Path) -> None:
    acl(out)
    hashes = hashes_in_dynsec((out / "dynamic-security.json").read_text())

    assert {name: hashes[name].is_of(password) for name, password in secrets(out).items()} == {
        "attic": True,
        "kitchen": True,
        "hub": True,
    }


def test_the_acl_file_comes_with_passwords_that_fit(out: Path) -> None:
    acl(out, "--format", "aclfile")
    hashes = hashes_in_password_file((out / "passwd").read_text())

    assert all(hashes[name].is_of(password) for name, password in secrets(out).items())
    assert "user kitchen" in (out / "aclfile").read_text()


@pytest.mark.parametrize("kind", ["dynsec", "aclfile"])
def test_nobody_else_may_read_what_is_written(out: Path, kind: str) -> None:
    acl(out, "--format", kind)
    modes = {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in out.rglob("*") if file.is_file()
    }

    assert set(modes.values()) == {0o600}


def test_passwords_are_shown_nowhere(out: Path) -> None:
    said = acl(out).output

    assert not [name for name, password in secrets(out).items() if password in said]


@pytest.mark.parametrize("kind", ["dynsec", "aclfile"])
def test_run_again_it_changes_nothing(out: Path, kind: str) -> None:
    acl(out, "--format", kind)
    before = contents(out)
    acl(out, "--format", kind)

    assert contents(out) == before


def test_a_new_client_leaves_the_others_as_they_are(out: Path) -> None:
    acl(out)
    before = secrets(out)
    hashes = hashes_in_dynsec((out / "dynamic-security.json").read_text())
    acl(out, clients="kitchen,hub,door")

    assert before.items() < secrets(out).items()
    assert hashes.items() < hashes_in_dynsec((out / "dynamic-security.json").read_text()).items()


def test_who_is_not_named_any_more_has_no_account(out: Path) -> None:
    acl(out)
    acl(out, clients="hub")

    assert set(hashes_in_dynsec((out / "dynamic-security.json").read_text())) == {"attic", "hub"}


def test_a_password_that_the_operator_chose_is_taken(out: Path) -> None:
    file = out / "secrets" / "kitchen.password"
    file.parent.mkdir(parents=True)
    file.write_text("of the firmware\n")
    file.chmod(0o600)
    acl(out)

    assert hashes_in_dynsec((out / "dynamic-security.json").read_text())["kitchen"].is_of(
        "of the firmware"
    )


def test_a_password_that_others_may_read_is_refused_with_the_command_that_closes_it(
    out: Path,
) -> None:
    acl(out)
    file = out / "secrets" / "kitchen.password"
    file.chmod(0o640)

    with pytest.raises(ConfigError, match=f"chmod 600 {file}$"):
        acl(out)


def test_a_pool_is_of_all_nodes_unless_it_says_of_which(out: Path) -> None:
    acl(out, "--pools", "fleet,spare=cellar", nodes="attic,cellar")
    text = (out / "dynamic-security.json").read_text()

    assert text.count('"$share/edged-fleet/edged/v1/pool/fleet/prompt/+"') == 2
    assert text.count('"$share/edged-spare/edged/v1/pool/spare/prompt/+"') == 1


def test_an_acl_file_for_pools_is_refused_since_it_cannot_guard_them(out: Path) -> None:
    with pytest.raises(ConfigError, match="take --format dynsec"):
        acl(out, "--format", "aclfile", "--pools", "fleet")
    assert not out.exists()


@pytest.mark.parametrize("root", ["edged/+", "$SYS", "a//b", ""])
def test_a_root_that_is_none_is_refused(out: Path, root: str) -> None:
    with pytest.raises(ConfigError, match="--root"):
        acl(out, "--root", root)


def test_a_name_of_dots_stays_in_the_folder(out: Path) -> None:
    acl(out, clients="..,.")

    assert {file.name for file in (out / "secrets").iterdir()} == {
        "attic.password",
        "...password",
        "..password",
    }
    assert list(out.parent.iterdir()) == [out]
