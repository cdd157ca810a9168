"""Where secrets may come from: credentials, and files that nobody else may read."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from edged.cli.config import as_toml
from edged.errors import ConfigError
from edged.settings import load_settings, secret_paths

pytestmark = pytest.mark.usefixtures("nothing_set")

PASSWORD = "hunter2"
SETTINGS_WITH_PASSWORD = f'[mqtt]\nusername = "attic"\npassword = "{PASSWORD}"\n'


def written(folder: Path, text: str, mode: int) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def refusal(file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    return str(caught.value)


def value(secret: SecretStr | None) -> str | None:
    return secret and secret.get_secret_value()


def test_the_secrets_are_the_password_and_the_hubs_token() -> None:
    assert {"mqtt.password", "model.hub_token"} <= set(secret_paths())


def test_what_everybody_may_know_is_no_secret() -> None:
    assert {"mqtt.username", "mqtt.host", "node"}.isdisjoint(secret_paths())


# The environment


@pytest.mark.parametrize("secret", sorted(secret_paths()))
def test_the_environment_is_no_place_for_a_secret(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("EDGED_" + secret.upper().replace(".", "__"), PASSWORD)
    said = refusal()

    assert f"LoadCredential=edged.{secret}:FILE" in said
    assert PASSWORD not in said


def test_nor_is_it_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("edged_mqtt__password", PASSWORD)

    assert "edged_mqtt__password" in refusal()


def test_an_empty_secret_in_the_environment_is_refused_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGED_MQTT__PASSWORD", "")

    assert "EDGED_MQTT__PASSWORD" in refusal()


# Files


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_in_a_file_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    file = written(tmp_path, SETTINGS_WITH_PASSWORD, mode)

    assert value(load_settings(file).mqtt.password) == PASSWORD


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_a_secret_in_a_file_of_others_is_refused_with_the_command_that_closes_it(
    tmp_path: Path, mode: int
) -> None:
    file = written(tmp_path, SETTINGS_WITH_PASSWORD, mode)
    said = refusal(file)

    assert f"holds mqtt.password, and others than its owner may use it (mode {mode:04o})" in said
    assert said.endswith(f"chmod 600 {file}")
    assert PASSWORD not in said


def test_the_command_holds_where_the_path_has_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "my settings"
    folder.mkdir()

    assert refusal(written(folder, SETTINGS_WITH_PASSWORD, 0o644)).endswith(
        f"chmod 600 '{folder}/settings.toml'"
    )


def test_a_file_without_secrets_may_be_read_by_everybody(tmp_path: Path) -> None:
    file = written(tmp_path, '[mqtt]\nusername = "attic"\n', 0o644)

    assert load_settings(file).mqtt.username == "attic"


def test_a_section_that_is_no_table_is_still_told_as_what_it_is(tmp_path: Path) -> None:
    assert "mqtt" in refusal(written(tmp_path, "mqtt = 1\n", 0o644))


# Credentials


def test_systemds_credentials_are_taken_whatever_their_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd guards them by access lists, which look like a right of the group's."""
    credential = tmp_path / "edged.mqtt.password"
    credential.write_text(PASSWORD)
    credential.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert value(load_settings().mqtt.password) == PASSWORD


# What is shown


@pytest.mark.parametrize("source", ["toml", "credential"])
def test_a_password_is_hidden_wherever_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    file = None
    if source == "toml":
        file = written(tmp_path, SETTINGS_WITH_PASSWORD, 0o600)
    else:
        (tmp_path / "edged.mqtt.password").write_text(PASSWORD)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    got = load_settings(file)

    assert value(got.mqtt.password) == PASSWORD
    assert PASSWORD not in as_toml(got) + repr(got) + str(got)


# The private key


def with_key(folder: Path, mode: int, *, in_certificate: bool = False) -> Path:
    """Settings that name a certificate and its key, whose file has this mode."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    for file in (key, certificate):
        file.write_text("a key")
        file.chmod(0o644)
    lines = ["[mqtt]", "tls = true", f'cert_file = "{certificate}"']
    if not in_certificate:
        lines.append(f'key_file = "{key}"')
    (certificate if in_certificate else key).chmod(mode)
    return written(folder, "\n".join(lines), 0o644)


def test_a_private_key_that_others_may_read_is_refused_with_the_command_that_closes_it(
    tmp_path: Path,
) -> None:
    assert refusal(with_key(tmp_path, 0o640)).endswith(f"chmod 600 {tmp_path}/key.pem")


def test_so_is_one_that_stands_in_the_certificates_file(tmp_path: Path) -> None:
    file = with_key(tmp_path, 0o644, in_certificate=True)

    assert refusal(file).endswith(f"chmod 600 {tmp_path}/certificate.pem")


def test_a_private_key_of_its_owner_alone_is_taken(tmp_path: Path) -> None:
    assert load_settings(with_key(tmp_path, 0o600)).mqtt.key_file == tmp_path / "key.pem"


def test_a_private_key_among_systemds_credentials_is_taken_whatever_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = with_key(tmp_path, 0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert load_settings(file).mqtt.key_file == tmp_path / "key.pem"
