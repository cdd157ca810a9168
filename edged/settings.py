"""All that an operator may set.

Later sources win: the defaults here, then ``/etc/edged/edged.toml`` (or the file of
``--config``), then the environment (``EDGED_MQTT__PORT``), then systemd credentials
(files ``edged.<setting>``, such as ``edged.mqtt.password``). A name that none of these
know is an error, because a typing mistake must not be a silent default.

Secrets come from credentials, or from files that nobody else may read; never from the
environment, which children inherit and tools print.
"""

import os
import re
import shlex
import socket
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
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
OTHERS_MODE = stat.S_IRWXG | stat.S_IRWXO
"""What a file with a secret in it must not have: rights of its group or of everybody."""
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


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def _split_address(text: str) -> tuple[str, int | None]:
    """Host and port of ``host``, ``host:port``, ``[IPv6]`` or ``[IPv6]:port``."""
    found = re.fullmatch(r"(?:\[([^\[\]\s]+)\]|([^:\[\]\s]+))(?::(\d{1,5}))?", text)
    port = int(found[3]) if found and found[3] else None
    if found is None or (port is not None and not 1 <= port <= 65535):
        raise ValueError("must be host or host:port, an IPv6 address in brackets")
    return found[1] or found[2], port


def _fallback(value: str) -> str:
    _split_address(value)
    return value


def _wants_tls(given: dict[str, Any]) -> bool:
    return any(given.get(name) is not None for name in ("username", "ca_file", "cert_file"))


def _usual_port(given: dict[str, Any]) -> int:
    return 8883 if given.get("tls") else 1883


class MqttSettings(_Section):
    """How to reach the broker, and what may be said there."""

    host: str = Field("localhost", min_length=1, description="the broker's name or address")
    username: str | None = Field(
        None,
        description="who we are for the broker, with TLS unless tls says otherwise; unset: no user",
    )
    password: SecretStr | None = Field(None, description="that user's; unset: none")
    ca_file: Path | None = Field(
        None,
        description="certificates (PEM) of the authorities that may vouch for the broker; unset: "
        "the system's",
    )
    cert_file: Path | None = Field(
        None, description="our own certificate (PEM), for a broker that asks; unset: none"
    )
    key_file: Path | None = Field(
        None, description="its private key (PEM), without a passphrase; unset: in cert_file"
    )
    tls: bool = Field(
        default_factory=_wants_tls,
        description="encrypt, and verify that it is the right broker; unset: where a user, a "
        "certificate or an authority is set",
    )
    tls_verify: bool = Field(
        default=True, description="false takes every broker for the right one: for trials only"
    )
    port: int = Field(
        default_factory=_usual_port,
        ge=1,
        le=65535,
        description="the broker's port; unset: 8883 with TLS, else 1883",
    )
    fallbacks: tuple[Annotated[str, AfterValidator(_fallback)], ...] = Field(
        (),
        description="brokers to try in turn when that one is not there: host or host:port, IPv6 in "
        "brackets; after a loss, the first is tried first again",
    )
    topic_root: TopicRoot = Field("edged/v1", description="the first levels of every topic")
    pools: tuple[Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$")], ...] = Field(
        (), description="pools whose prompts this node answers, too, while it can serve"
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto is MQTT 5, and 3.1.1 to a broker that refuses it"
    )
    keepalive_s: int = Field(
        60,
        ge=5,
        le=3600,
        description="how soon a lost connection is noticed, and how often a silent one is used: "
        "more (600) lets a radio sleep, less (15) finds a broken path sooner, and keeps routers "
        "from forgetting it",
    )
    session_expiry_s: int = Field(
        86_400,
        ge=0,
        le=0xFFFF_FFFE,
        description="how long the broker keeps prompts for a node that is away (MQTT 5)",
    )
    require_client: bool = Field(
        default=False, description="serve only topics that name a client, which a broker can guard"
    )
    reply_prefixes: tuple[str, ...] = Field(
        ("{root}/+/completion/{client}/",),
        description="where prompts may direct their replies; + is any one level, {root} is "
        "topic_root, {client} who asks",
    )
    text_replies: bool = Field(
        default=False, description="answer a plain-text prompt with plain text instead of JSON"
    )
    max_payload_bytes: int = Field(
        262_144, ge=1024, le=64 * 1024 * 1024, description="the longest prompt message"
    )

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file is set without cert_file, the certificate that it is of")
        return self

    @property
    def brokers(self) -> tuple[BrokerAddress, ...]:
        """Every address to try, in turn."""
        others = (_split_address(each) for each in self.fallbacks)
        return (
            BrokerAddress(self.host, self.port),
            *(BrokerAddress(host, port or _usual_port({"tls": self.tls})) for host, port in others),
        )


class ModelSettings(_Section):
    """Which weights to serve."""

    path: Path | None = Field(
        None,
        description="a GGUF file; unset: the best of the store that fits, and of an empty store "
        "the bundled model",
    )
    store: Path = Field(
        default_factory=default_store,
        description="where pulled models are kept; unset: $CACHE_DIRECTORY/models, else "
        "~/.cache/edged/models",
    )
    hub_token: SecretStr | None = Field(
        None, description="the hub's token, for gated and private models; unset: $HF_TOKEN"
    )


class EngineSettings(_Section):
    """What turns weights into tokens."""

    name: Literal["auto", "llama_cpp", "ctransformers", "echo"] = Field(
        "auto",
        description="auto is the first of llama_cpp and ctransformers that is installed and can "
        "serve the model; echo answers with the question, for tests",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="threads that compute; unset: the profile's, fewer for small models",
    )
    ctx: int | None = Field(
        None,
        ge=64,
        le=1_048_576,
        description="tokens that a prompt and its answer may fill, at most what the model was "
        "trained for; unset: 4096, more if they fit",
    )
    slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="prompts answered at the same time (llama_cpp); they share one cache, and what "
        "does not fit there waits; unset: the profile's number",
    )
    kv_type: Literal["f16", "q8_0", "q4_0"] | None = Field(
        None,
        description="how keys and values are kept: q8_0 takes 53 % of f16, q4_0 28 %; unset: the "
        "most exact that fits",
    )
    load_mode: Literal["none", "none-plain", "mmap"] | None = Field(
        None,
        description="none reads the weights into memory and repacks them for the processor; "
        "none-plain leaves them as they are (slower prompts); mmap maps the file and repacks "
        "beside it (nearly twice the memory); unset: none",
    )
    gpu_layers: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="layers on the GPU, where llama.cpp was built for it; unset: all that fit",
    )
    echo_step_ms: float = Field(
        0, ge=0, le=10_000, description="how long a step of the echo engine takes, for tests"
    )


class SamplingSettings(_Section):
    """What a prompt gets when it does not say, and how far it may go."""

    max_tokens: int = Field(512, ge=1, description="the longest answer of a prompt that names none")
    max_tokens_limit: int = Field(4096, ge=1, description="the longest that a prompt may ask for")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    temperature_limit: float = Field(2.0, ge=0, description="the highest that a prompt may ask for")
    top_k: int = Field(
        40, ge=0, description="above temperature 0: so many tokens may be drawn; 0 is all"
    )
    top_p: float = Field(
        0.95,
        gt=0,
        le=1,
        description="above temperature 0: of the likeliest tokens, those that together have this "
        "probability; 1 is all",
    )
    min_p: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="above temperature 0: tokens at least so likely, relative to the likeliest; 0 "
        "is all",
    )
    repeat_penalty: float = Field(
        1.0, ge=0.5, le=2, description="above 1, the last 64 tokens become less likely"
    )


class ChatSettings(_Section):
    """What is said to the model before the requester speaks."""

    system_prompt: str | None = Field(
        None,
        description="said to the model first, unless a prompt brings its own system message; "
        "unset: nothing",
    )
    user_template: UserTemplate | None = Field(
        None,
        description="what the last message of a prompt becomes: {prompt}, {date} and {time} are "
        "filled in; unset: it stays as it is",
    )


class QueueSettings(_Section):
    """How many prompts may wait, of all clients together and of each."""

    max_prompts: int = Field(64, ge=1, le=100_000, description="how many prompts may wait")
    client_active: int | None = Field(
        None, ge=1, description="of one client, prompts answered at the same time; unset: no limit"
    )
    client_queued: int | None = Field(
        None, ge=1, description="of one client, prompts that wait; unset: no limit of its own"
    )
    client_tokens_per_min: int | None = Field(
        None,
        ge=1,
        description="of one client, tokens read and generated within a minute; unset: no limit",
    )


class SpoolSettings(_Section):
    """How long what was promised and answered is kept on disk."""

    keep_s: float = Field(
        86_400, ge=0, description="an answer is given again for so long, then its text is erased"
    )
    max_bytes: int = Field(
        64 * 1024 * 1024,
        ge=65_536,
        description="of answers kept, and as many again of conversations; the oldest leave first",
    )


class SessionSettings(_Section):
    """How much of a conversation is kept; the oldest turns leave first."""

    max_turns: int = Field(
        32, ge=1, le=10_000, description="questions, each with its answer, that go on with it"
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens that they may fill; unset: as many as the context has room for",
    )
    keep_s: float = Field(
        86_400, ge=0, description="a conversation that rested for so long is erased"
    )
    max_sessions: int = Field(
        64, ge=1, le=100_000, description="of one client; who rested longest leaves first"
    )


class ThrottleSettings(_Section):
    """How hard the board may work."""

    limit_c: float | None = Field(
        None,
        ge=30,
        le=120,
        description="keep the temperature below this, °C; unset, or higher: the profile's limit",
    )
    clock: bool = Field(
        default=True, description="lower the clock first, where scaling_max_freq may be written"
    )
    root: Path = Field(
        Path("/"), description="where sensors are looked for; another folder is a simulated board"
    )


class MemorySettings(_Section):
    """How memory is given back."""

    keep_alive_s: float | None = Field(
        None,
        ge=0,
        description="unload the model after so long without a prompt, 0: at once; unset: never",
    )


class LogSettings(_Section):
    """What the daemon says on stderr; never the text of a prompt."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="the least that is said"
    )


class Settings(BaseSettings):
    """The whole configuration; frozen once read."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    node: str = Field(
        default_factory=default_node,
        pattern=rf"^{NAME_PATTERN}$",
        description="this node's level in the topics; unset: the host's name",
    )
    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="what this node remembers: prompts and answers, the model that was chosen, "
        "measurements, converted models; one daemon a folder; unset: $STATE_DIRECTORY, else "
        "~/.local/state/edged",
    )
    drain_s: float = Field(
        30, ge=0, le=86_400, description="how long a stop waits for who is being answered"
    )
    profile: str | None = Field(
        None, description="the hardware profile's name; unset: found by looking at the machine"
    )
    mqtt: MqttSettings = MqttSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    sampling: SamplingSettings = SamplingSettings()
    chat: ChatSettings = ChatSettings()
    queue: QueueSettings = QueueSettings()
    spool: SpoolSettings = SpoolSettings()
    session: SessionSettings = SessionSettings()
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
    if settings.node in (*settings.mqtt.pools, "pool"):
        raise ConfigError(
            f"settings: node: {settings.node} is the name of a pool, or stands for all of them in "
            "the topics; choose another"
        )
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
    _refuse_open_key(settings)
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            values = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"settings: there is no file {path}") from None
    except OSError as error:
        raise ConfigError(f"settings: {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings: {path} is not TOML: {error}") from None
    if mode & OTHERS_MODE:
        for secret in secret_paths():
            if _is_in(values, secret):
                raise ConfigError(_too_open(path, mode, f"holds {secret}"))
    return values


def _is_in(values: Mapping[str, Any], path: str) -> bool:
    *sections, name = path.split(".")
    for section in sections:
        inner = values.get(section)
        if not isinstance(inner, dict):
            return False
        values = inner
    return name in values


def _refuse_open_key(settings: Settings) -> None:
    """Raise ``ConfigError`` where others may read the private key of our certificate."""
    file = settings.mqtt.key_file or settings.mqtt.cert_file
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    # systemd guards its credentials by access lists, which look like a group's right in the mode.
    if file is None or (folder and Path(folder) in file.parents):
        return
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # whoever connects with it will say; most commands do not need it
    if mode & OTHERS_MODE:
        raise ConfigError(_too_open(file, mode, "holds the private key"))


def _too_open(path: Path, mode: int, what: str) -> str:
    return (
        f"settings: {path} {what}, and others than its owner may use it (mode "
        f"{stat.S_IMODE(mode):04o}); close it: chmod 600 {shlex.quote(str(path))}"
    )


def _refuse_unknown_environment() -> None:
    known = {_env_name(path) for path in setting_paths(Settings)}
    secrets = {_env_name(path): path for path in secret_paths()}
    for name in sorted(os.environ):
        if not name.upper().startswith(ENV_PREFIX) or name in ENV_NOT_SETTINGS:
            continue
        if secret := secrets.get(name.upper()):
            raise ConfigError(
                f"settings: the environment sets {name}, and a secret does not belong there; write "
                f"it to a file and pass that as the credential {CREDENTIAL_PREFIX}{secret} (in a "
                f"unit: LoadCredential={CREDENTIAL_PREFIX}{secret}:FILE), or set {secret} in a "
                "settings file with mode 0600"
            )
        if name.upper() not in known:
            raise ConfigError(
                f"settings: the environment sets {name}, which is no setting; "
                "`edged config show` lists them"
            )


def _env_name(path: str) -> str:
    return ENV_PREFIX + path.upper().replace(".", "__")


def setting_paths(model: type[BaseModel]) -> Iterator[str]:
    """Every setting's dotted name, sections included only as part of their settings' names."""
    for path, _ in _typed_paths(model, ""):
        yield path


def secret_paths() -> Iterator[str]:
    """The settings that are secrets, by their type."""
    for path, kind in _typed_paths(Settings, ""):
        if kind is SecretStr or SecretStr in get_args(kind):
            yield path


def _typed_paths(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _typed_paths(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def describe_validation(error: ValidationError) -> str:
    """One line for the first thing that is wrong, and how many more there are.

    The offending value is not repeated: it may be a secret or a requester's text.
    """
    problems = [
        each
        for each in error.errors(include_url=False, include_context=False, include_input=False)
        if each["type"] != "default_factory_not_called"  # only follows from another one
    ]
    first: Mapping[str, Any] = problems[0]
    where = ".".join(str(part) for part in first["loc"])
    what = "is not known" if first["type"] == "extra_forbidden" else first["msg"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {what}{more}"
