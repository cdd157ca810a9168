"""All that an operator may set.

Later sources win: the defaults here, then ``/etc/edged/edged.toml`` (or the file of
``--config``), then the environment (``EDGED_MQTT__PORT``), then systemd credentials
(files ``edged.<setting>``, such as ``edged.mqtt.password``). A name that none of these
know is an error, because a typing mistake must not be a silent default.
"""

import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from edged.errors import ConfigError

DEFAULT_CONFIG_PATH = Path("/etc/edged/edged.toml")
ENV_PREFIX = "EDGED_"
CREDENTIAL_PREFIX = "edged."
# Read by the command line itself, so not settings.
ENV_NOT_SETTINGS = frozenset({"EDGED_DEBUG", "EDGED_CONFIG"})

NAME_PATTERN = r"[A-Za-z0-9_.-]{1,64}"


def _topic_root(value: str) -> str:
    if value.startswith("$") or any(not level for level in value.split("/")):
        raise ValueError("must be topic levels such as edged/v1, without an empty level or a $")
    if not value.isprintable() or set(value) & set("+#"):
        raise ValueError("must not contain +, # or control characters")
    return value


TopicRoot = Annotated[str, AfterValidator(_topic_root)]


def _user_template(value: str) -> str:
    if value.count("{prompt}") != 1:
        raise ValueError("must contain {prompt} once")
    unknown = set(re.findall(r"\{(\w+)\}", value)) - {"prompt", "date", "time"}
    if unknown:
        raise ValueError(f"knows {{prompt}}, {{date}} and {{time}}, not {', '.join(unknown)}")
    return value


UserTemplate = Annotated[str, AfterValidator(_user_template)]


def default_node() -> str:
    """The host's name, made fit to be a topic level."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64]
    return name or "edged"


def default_state_dir() -> Path:
    """Where systemd says, else the user's XDG state folder."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edged"


def default_store() -> Path:
    """Where systemd says, else the user's XDG cache folder."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0]) / "models"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edged" / "models"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MqttSettings(_Section):
    """How to reach the broker, and what may be said there."""

    host: str = Field("localhost", min_length=1)
    port: int = Field(1883, ge=1, le=65535)
    topic_root: TopicRoot = "edged/v1"
    username: str | None = None
    password: SecretStr | None = None
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto speaks MQTT 5, and 3.1.1 to a broker that refuses it"
    )
    keepalive_s: int = Field(60, ge=5, le=3600)
    session_expiry_s: int = Field(86_400, ge=0, le=0xFFFF_FFFE)
    require_client: bool = Field(
        default=False, description="serve only topics that name a client, which a broker can guard"
    )
    reply_prefixes: tuple[str, ...] = Field(
        ("{root}/+/completion/{client}/",),
        description="where a prompt may direct its replies; + is any one level",
    )
    text_replies: bool = Field(
        default=False, description="answer a plain-text prompt with plain text instead of JSON"
    )
    max_payload_bytes: int = Field(262_144, ge=1024, le=64 * 1024 * 1024)


class ModelSettings(_Section):
    """Which weights to serve."""

    path: Path | None = Field(None, description="a GGUF file; unset: the bundled model")
    store: Path = Field(default_factory=default_store, description="where pulled models are kept")
    hub_token: SecretStr | None = Field(
        None, description="the hub's token, for gated and private models"
    )


class EngineSettings(_Section):
    """What turns weights into tokens."""

    name: Literal["auto", "llama_cpp", "ctransformers", "echo"] = "auto"
    threads: int | None = Field(
        None, ge=1, le=1024, description="unset: every core, fewer for small models"
    )
    ctx: int | None = Field(
        None,
        ge=64,
        le=1_048_576,
        description="tokens a prompt and its answer may fill; unset: 4096, more if they fit",
    )
    slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="prompts answered at the same time (llama_cpp); unset: the profile's number",
    )
    kv_type: Literal["f16", "q8_0", "q4_0"] | None = Field(
        None, description="how keys and values are kept; unset: the most exact that fits"
    )
    load_mode: Literal["none", "none-plain", "mmap"] | None = Field(
        None, description="read into memory and repacked (none), not repacked, or mapped"
    )
    gpu_layers: int | None = Field(
        None, ge=0, le=1024, description="layers on the GPU; unset: all that fit"
    )
    echo_step_ms: float = Field(
        0, ge=0, le=10_000, description="how long a step of the echo engine takes"
    )


class SamplingSettings(_Section):
    """What a prompt gets when it does not say, and how far it may go."""

    max_tokens: int = Field(512, ge=1)
    max_tokens_limit: int = Field(4096, ge=1)
    temperature: float = Field(0.0, ge=0)
    temperature_limit: float = Field(2.0, ge=0)
    top_k: int = Field(40, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    min_p: float = Field(0.05, ge=0, lt=1)
    repeat_penalty: float = Field(1.0, ge=0.5, le=2)


class ChatSettings(_Section):
    """What is said to the model before the requester speaks."""

    system_prompt: str | None = Field(
        None, description="comes first unless a prompt's messages bring a system message"
    )
    user_template: UserTemplate | None = Field(
        None, description="what the last message becomes: {prompt}, {date} and {time} are filled in"
    )


class QueueSettings(_Section):
    """How many prompts may wait."""

    max_prompts: int = Field(64, ge=1, le=100_000)


class ThrottleSettings(_Section):
    """How hard the board may work."""

    limit_c: float | None = Field(
        None,
        ge=30,
        le=120,
        description="keep the temperature below this; unset, or higher: the profile's limit",
    )
    clock: bool = Field(
        default=True, description="lower the clock first, where scaling_max_freq may be written"
    )
    root: Path = Field(
        Path("/"), description="where sensors are looked for: of another folder, a simulated board"
    )


class MemorySettings(_Section):
    """How memory is given back."""

    keep_alive_s: float | None = Field(
        None, ge=0, description="unload the model after so long without a prompt; unset: never"
    )


class LogSettings(_Section):
    """What the daemon says on stderr; never the text of a prompt."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """The whole configuration; frozen once read."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    node: str = Field(default_factory=default_node, pattern=rf"^{NAME_PATTERN}$")
    state_dir: Path = Field(default_factory=default_state_dir)
    profile: str | None = Field(
        None, description="the hardware profile's name; unset: found by looking at the machine"
    )
    mqtt: MqttSettings = MqttSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    sampling: SamplingSettings = SamplingSettings()
    chat: ChatSettings = ChatSettings()
    queue: QueueSettings = QueueSettings()
    throttle: ThrottleSettings = ThrottleSettings()
    memory: MemorySettings = MemorySettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the base class's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The first wins. The TOML file comes in as initial values, which is why it stands last.
        return (_Credentials(settings_cls), env_settings, init_settings)


class _Credentials(PydanticBaseSettingsSource):
    """Files ``edged.<section>.<name>`` in ``$CREDENTIALS_DIRECTORY``, one value each."""

    def get_field_value(
        self,
        field: object,  # noqa: ARG002 (the base class's signature)
        field_name: str,
    ) -> tuple[Any, str, bool]:
        return None, field_name, False  # the abstract half; everything is read at once below

    def __call__(self) -> dict[str, Any]:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            return {}
        values: dict[str, Any] = {}
        for file in sorted(Path(folder).glob(f"{CREDENTIAL_PREFIX}*")):
            path = file.name.removeprefix(CREDENTIAL_PREFIX)
            if path not in setting_paths(Settings):
                raise ConfigError(f"settings: the credential {file.name} is no setting")
            *sections, name = path.split(".")
            section = values
            for each in sections:
                section = section.setdefault(each, {})
            try:
                section[name] = file.read_text("utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise ConfigError(
                    f"settings: the credential {file.name} cannot be read: {reason}"
                ) from None
        return values


def config_path(config: Path | None) -> Path:
    """The settings file: the one given, else the environment's, else the default."""
    return config or Path(os.environ.get("EDGED_CONFIG", DEFAULT_CONFIG_PATH))


def load_settings(config: Path | None = None) -> Settings:
    """Read every source.

    Raises ``ConfigError`` that names the setting, where it came from being plain from its
    spelling (``mqtt.port`` in a file, ``EDGED_MQTT__PORT`` in the environment).
    """
    path = config_path(config)
    from_file: dict[str, Any] = {}
    if config is not None or "EDGED_CONFIG" in os.environ or path.exists():
        from_file = _read_toml(path)
    for name in from_file:
        # BaseSettings takes _env_file and its like as arguments of its own.
        if name not in Settings.model_fields:
            raise ConfigError(f"settings: {name}: is not known")
    _refuse_unknown_environment()
    try:
        settings = Settings(**from_file)
    except ValidationError as error:
        raise ConfigError(f"settings: {describe_validation(error)}") from None
    except SettingsError as error:
        # The cause of what pydantic-settings says repeats the value.
        raise ConfigError(f"settings: {error}; lists are written as JSON there") from None
    if settings.sampling.temperature > settings.sampling.temperature_limit:
        raise ConfigError(
            f"settings: sampling.temperature ({settings.sampling.temperature:g}) is above "
            f"sampling.temperature_limit ({settings.sampling.temperature_limit:g}); lower one or "
            "raise the other"
        )
    if settings.sampling.max_tokens > settings.sampling.max_tokens_limit:
        raise ConfigError(
            f"settings: sampling.max_tokens ({settings.sampling.max_tokens}) is above "
            f"sampling.max_tokens_limit ({settings.sampling.max_tokens_limit}); lower one or raise "
            "the other"
        )
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"settings: there is no file {path}") from None
    except OSError as error:
        raise ConfigError(f"settings: {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings: {path} is not TOML: {error}") from None


def _refuse_unknown_environment() -> None:
    known = {_env_name(path) for path in setting_paths(Settings)}
    for name in sorted(os.environ):
        if not name.upper().startswith(ENV_PREFIX) or name in ENV_NOT_SETTINGS:
            continue
        if name.upper() not in known:
            raise ConfigError(
                f"settings: the environment sets {name}, which is no setting; "
                "`edged config show` lists them"
            )


def _env_name(path: str) -> str:
    return ENV_PREFIX + path.upper().replace(".", "__")


def setting_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting's dotted name, sections included only as part of their settings' names."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from setting_paths(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def describe_validation(error: ValidationError) -> str:
    """One line for the first thing that is wrong, and how many more there are.

    The offending value is not repeated: it may be a secret or a requester's text.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first: Mapping[str, Any] = problems[0]
    where = ".".join(str(part) for part in first["loc"])
    what = "is not known" if first["type"] == "extra_forbidden" else first["msg"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {what}{more}"
