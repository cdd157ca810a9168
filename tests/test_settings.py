"""Where settings come from, which wins, and what is said of mistakes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.messages import Sampling
from edged.settings import (
    NAME_PATTERN,
    Settings,
    default_node,
    default_state_dir,
    load_settings,
    setting_paths,
)
from edged.transports.topics import is_name


class Operator:
    """Sets things, each in its own place."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "edged.toml"
        self.credentials = folder / "credentials"
        self._monkeypatch = monkeypatch

    def toml(self, text: str) -> None:
        self.file.write_text(text)

    def env(self, **values: str) -> None:
        for name, value in values.items():
            self._monkeypatch.setenv(name, value)

    def credential(self, name: str, value: str | bytes) -> None:
        self.credentials.mkdir(exist_ok=True)
        data = value if isinstance(value, bytes) else value.encode()
        (self.credentials / name).write_bytes(data)
        self._monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(self.credentials))

    def load(self) -> Settings:
        return load_settings(self.file if self.file.exists() else None)

    def error(self) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load()
        return str(caught.value)


@pytest.fixture
def operator(nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """An operator on a machine where nothing is set."""
    return Operator(tmp_path, monkeypatch)


# Which source wins


def test_with_nothing_set_the_broker_is_on_this_machine(operator: Operator) -> None:
    mqtt = operator.load().mqtt

    assert (mqtt.host, mqtt.port, mqtt.topic_root) == ("localhost", 1883, "edged/v1")


def test_with_nothing_set_the_bundled_model_is_served_by_the_best_engine(
    operator: Operator,
) -> None:
    got = operator.load()

    assert (got.model.path, got.engine.name) == (None, "auto")


def test_the_file_wins_over_the_default(operator: Operator) -> None:
    operator.toml("[mqtt]\nport = 1001\n")

    assert operator.load().mqtt.port == 1001


def test_the_environment_wins_over_the_file(operator: Operator) -> None:
    operator.toml("[mqtt]\nport = 1001\n")
    operator.env(EDGED_MQTT__PORT="1002")

    assert operator.load().mqtt.port == 1002


def test_a_credential_wins_over_the_environment(operator: Operator) -> None:
    operator.env(EDGED_MQTT__PORT="1002")
    operator.credential("edged.mqtt.port", "1003\n")

    assert operator.load().mqtt.port == 1003


def test_a_credential_wins_over_the_file(operator: Operator) -> None:
    operator.toml("[mqtt]\nport = 1001\n")
    operator.credential("edged.mqtt.port", "1003")

    assert operator.load().mqtt.port == 1003


def test_sources_are_merged_setting_by_setting(operator: Operator) -> None:
    operator.toml('[mqtt]\nhost = "broker"\nport = 1001\n')
    operator.env(EDGED_MQTT__PORT="1002")
    operator.credential("edged.mqtt.username", "edged")
    mqtt = operator.load().mqtt

    assert (mqtt.host, mqtt.port, mqtt.username) == ("broker", 1002, "edged")


def test_a_password_comes_as_a_credential_without_its_line_end(operator: Operator) -> None:
    operator.credential("edged.mqtt.password", "hunter2\n")
    password = operator.load().mqtt.password

    assert password is not None
    assert password.get_secret_value() == "hunter2"


def test_a_setting_outside_the_sections_comes_from_the_environment(operator: Operator) -> None:
    operator.env(EDGED_NODE="attic", EDGED_STATE_DIR="/srv/edged")
    got = operator.load()

    assert (got.node, got.state_dir) == ("attic", Path("/srv/edged"))


def test_names_in_the_environment_may_be_in_lower_case(operator: Operator) -> None:
    operator.env(edged_mqtt__port="1002")

    assert operator.load().mqtt.port == 1002


def test_a_list_in_the_environment_is_json(operator: Operator) -> None:
    operator.env(EDGED_MQTT__REPLY_PREFIXES='["home/", "{root}/x/"]')

    assert operator.load().mqtt.reply_prefixes == ("home/", "{root}/x/")


def test_a_credential_of_another_service_is_none_of_ours(operator: Operator) -> None:
    operator.credential("mosquitto.password", "x")

    assert operator.load().mqtt.password is None


def test_the_environment_can_name_the_file(operator: Operator) -> None:
    operator.toml('node = "attic"\n')
    operator.env(EDGED_CONFIG=str(operator.file))

    assert load_settings().node == "attic"


def test_the_default_file_is_read_where_it_exists(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.toml('node = "attic"\n')
    monkeypatch.setattr("edged.settings.DEFAULT_CONFIG_PATH", operator.file)

    assert load_settings().node == "attic"


def test_settings_do_not_change_once_read(operator: Operator) -> None:
    with pytest.raises(ValueError, match="frozen"):
        operator.load().mqtt.port = 1  # type: ignore[misc]


# Unknown names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[mqtt]\nprot = 1883\n", "mqtt.prot"),
        ("[mqqt]\nport = 1883\n", "mqqt"),
        ("port = 1883\n", "port"),
        ('_env_file = "x"\n', "_env_file"),
    ],
)
def test_an_unknown_name_in_the_file_is_an_error_that_names_it(
    operator: Operator, text: str, name: str
) -> None:
    operator.toml(text)

    assert name in operator.error()


@pytest.mark.parametrize(
    "name", ["EDGED_MQTT__PROT", "EDGED_PORT", "EDGED_MQTT", "EDGED_MQTT_PORT", "edged_prot"]
)
def test_an_unknown_name_in_the_environment_is_an_error_that_names_it(
    operator: Operator, name: str
) -> None:
    operator.env(**{name: "1883"})

    assert name in operator.error()


@pytest.mark.parametrize("name", ["EDGED_DEBUG", "EDGED_CONFIG"])
def test_what_the_command_line_reads_itself_is_no_unknown_setting(
    operator: Operator, name: str
) -> None:
    operator.toml("")
    operator.env(**{name: str(operator.file)})

    assert operator.load().mqtt.port == 1883


@pytest.mark.parametrize("name", ["mqtt.pasword", "password", "mqtt.password.old"])
def test_an_unknown_credential_is_an_error_that_names_it(operator: Operator, name: str) -> None:
    operator.credential(f"edged.{name}", "hunter2")

    assert name.removesuffix(".old") in operator.error()


def test_a_credential_that_is_a_setting_and_a_section_at_once_is_an_error(
    operator: Operator,
) -> None:
    operator.credential("edged.mqtt", "x")
    operator.credential("edged.mqtt.password", "hunter2")

    assert "mqtt" in operator.error()


# Wrong values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("node", "a/b"),
        ("node", ""),
        ("node", "x" * 65),
        ("mqtt.port", "0"),
        ("mqtt.port", "many"),
        ("mqtt.protocol", "4"),
        ("mqtt.topic_root", "edged/+"),
        ("mqtt.topic_root", "$edged"),
        ("mqtt.topic_root", "edged//v1"),
        ("mqtt.topic_root", ""),
        ("mqtt.max_payload_bytes", "10"),
        ("mqtt.reply_prefixes", "home/"),
        ("engine.threads", "0"),
        ("engine.slots", "65"),
        ("sampling.top_p", "0"),
        ("sampling.temperature", "-1"),
        ("queue.max_prompts", "0"),
        ("log.level", "LOUD"),
    ],
)
def test_a_value_out_of_bounds_is_an_error_that_names_the_setting(
    operator: Operator, name: str, value: str
) -> None:
    operator.env(**{"EDGED_" + name.upper().replace(".", "__"): value})

    assert name.split(".", maxsplit=1)[0] in operator.error().lower()


def test_the_error_names_the_setting_with_its_section(operator: Operator) -> None:
    operator.toml("[mqtt]\nport = 0\n")

    assert operator.error().startswith("settings: mqtt.port: ")


def test_the_error_counts_what_else_is_wrong(operator: Operator) -> None:
    operator.toml("[mqtt]\nport = 0\nkeepalive_s = 0\n[engine]\nslots = 0\n")

    assert operator.error().endswith("(and 2 more)")


def test_an_error_does_not_repeat_the_value(operator: Operator) -> None:
    operator.toml('[mqtt]\nport = "hunter2"\n')

    assert "hunter2" not in operator.error()


def test_an_error_does_not_repeat_a_secret(operator: Operator) -> None:
    operator.toml('[mqtt]\npassword = ["hunter2"]\n')
    operator.file.chmod(0o600)

    assert "hunter2" not in operator.error()


def test_more_tokens_by_default_than_are_allowed_is_an_error_with_both(
    operator: Operator,
) -> None:
    operator.toml("[sampling]\nmax_tokens = 100\nmax_tokens_limit = 50\n")
    said = operator.error()

    assert [name for name in ("max_tokens (100)", "max_tokens_limit (50)") if name in said] == [
        "max_tokens (100)",
        "max_tokens_limit (50)",
    ]


def test_a_hotter_default_than_is_allowed_is_an_error(operator: Operator) -> None:
    operator.toml("[sampling]\ntemperature = 1.5\ntemperature_limit = 1.0\n")

    assert "sampling.temperature" in operator.error()


# Files that cannot be read


def test_a_file_that_was_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*nothing\.toml"):
        load_settings(tmp_path / "nothing.toml")


def test_a_file_that_the_environment_names_and_is_not_there_is_an_error(
    operator: Operator, tmp_path: Path
) -> None:
    operator.env(EDGED_CONFIG=str(tmp_path / "nothing.toml"))

    assert "nothing.toml" in operator.error()


@pytest.mark.parametrize("content", [b"[mqtt", b"a = \xff\n"])
def test_a_file_that_is_no_toml_is_an_error_that_names_it(
    operator: Operator, content: bytes
) -> None:
    operator.file.write_bytes(content)

    assert f"{operator.file} is not TOML" in operator.error()


def test_a_folder_instead_of_a_file_is_an_error_that_names_it(operator: Operator) -> None:
    operator.file.mkdir()

    assert f"{operator.file} cannot be read" in operator.error()


def test_a_credential_that_is_no_text_is_an_error_that_names_it(operator: Operator) -> None:
    operator.credential("edged.mqtt.password", b"\xff\xfe")

    assert "mqtt.password" in operator.error()


# Defaults of the machine


def test_the_node_is_named_after_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "pi-attic.local")

    assert default_node() == "pi-attic.local"


@given(st.text(max_size=100))
@settings(max_examples=100)
def test_every_hosts_name_makes_a_nodes_name(name: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("socket.gethostname", lambda: name)

        assert is_name(default_node())


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/edged"}, "/var/lib/edged"),
        ({"STATE_DIRECTORY": "/var/lib/edged:/var/lib/other"}, "/var/lib/edged"),
        ({"XDG_STATE_HOME": "/home/x/state"}, "/home/x/state/edged"),
        ({"STATE_DIRECTORY": "/s", "XDG_STATE_HOME": "/x"}, "/s"),
        ({"HOME": "/home/x"}, "/home/x/.local/state/edged"),
    ],
)
def test_state_lies_where_systemd_or_the_user_keeps_it(
    operator: Operator, variables: dict[str, str], folder: str
) -> None:
    operator.env(**variables)

    assert default_state_dir() == Path(folder)


# Names that others rely on


@pytest.mark.parametrize(
    "name",
    [
        "node",
        "state_dir",
        "mqtt.host",
        "mqtt.port",
        "mqtt.topic_root",
        "mqtt.require_client",
        "mqtt.text_replies",
        "mqtt.max_payload_bytes",
        "model.path",
        "engine.name",
        "engine.threads",
    ],
)
def test_a_setting_that_others_rely_on_has_kept_its_name(name: str) -> None:
    assert name in set(setting_paths(Settings))


def test_sections_are_no_settings_of_their_own() -> None:
    assert {"mqtt", "engine"}.isdisjoint(setting_paths(Settings))


def test_every_field_of_sampling_that_an_operator_can_default_has_a_setting() -> None:
    fields = set(Sampling.__dataclass_fields__) - {"seed", "stop"}

    assert {f"sampling.{field}" for field in fields} <= set(setting_paths(Settings))


def test_names_have_at_most_64_characters() -> None:
    assert NAME_PATTERN.endswith("{1,64}")
