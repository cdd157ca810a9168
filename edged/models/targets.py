"""What an operator may name to be pulled, and what the store calls it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from huggingface_hub.constants import DEFAULT_REVISION, HF_URL_HOSTS

from edged.errors import ConfigError
from edged.models.catalogue import read_catalogue
from edged.models.sources import FileSource, HubSource, Source, UrlSource
from edged.models.store import check_name

DEFAULT_QUANTISATION: Final = "q4_k_m"

_HUB_FILE: Final = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)/(?P<file>[^@]+\.gguf)(@(?P<revision>.+))?"
)
_HUB_PAGE: Final = re.compile(r"/(?P<repository>[\w.-]+/[\w.-]+)/(resolve|blob)/(?P<rest>.+)")


@dataclass(frozen=True)
class Target:
    """What to pull, and what to call it."""

    source: Source
    name: str
    catalogue: str | None = None


def parse_target(text: str, token: str | None = None, name: str | None = None) -> Target:
    """What an operator names: an entry of the catalogue, or hf:, https://, http:// or file:.

    The hub is asked with ``token``; the store shall call it ``name``, or as its file is called.
    Raises ``ConfigError``.
    """
    target = _parse(text, token)
    target = Target(target.source, name or target.name, target.catalogue)
    check_name(target.name)
    return target


def _parse(text: str, token: str | None) -> Target:
    source: Source
    if text.startswith("hf:"):
        source = _hub_source(text.removeprefix("hf:"), token)
    elif text.startswith("file:"):
        path = re.sub(r"^//(?=/)", "", text.removeprefix("file:"))
        source = FileSource(Path(path).expanduser().absolute())
    elif re.match("https?://", text):
        source = _web_source(text, token)
    else:
        return _catalogue_target(text, token)
    return Target(source, source.stem)


def _hub_source(rest: str, token: str | None) -> HubSource:
    found = _HUB_FILE.fullmatch(rest)
    if not found:
        raise ConfigError(
            f"hf:{rest} names no file on the hub; write hf:OWNER/REPOSITORY/FILE.gguf, perhaps "
            "with @REVISION",
        )
    return HubSource(
        found["repository"], found["file"], found["revision"] or DEFAULT_REVISION, token
    )


def _web_source(url: str, token: str | None) -> HubSource | UrlSource:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise ConfigError("that is no URL: it names no server")  # not repeated: may hold a password
    page = _HUB_PAGE.fullmatch(parts.path)
    if page and host in HF_URL_HOSTS and parts.port is None:
        # The address that a browser shows; by the hub's protocol, its SHA-256 is known.
        revision, _, file = unquote(page["rest"]).partition("/")
        return HubSource(page["repository"], file, revision, token)
    return UrlSource(url)


def _catalogue_target(text: str, token: str | None) -> Target:
    name, _, wanted = text.partition(":")
    try:
        entry = read_catalogue().find(name)
    except ConfigError as e:
        raise ConfigError(
            f"{e}; or write hf:OWNER/REPOSITORY/FILE, https://… or file:PATH",
        ) from None
    if entry.unloadable is not None:
        raise ConfigError(f"{entry.title} is known but cannot be served: {entry.unloadable}")
    files = {str(quantisation): file for quantisation, file in entry.files.items()}
    quantisation = wanted.lower() or (
        DEFAULT_QUANTISATION if DEFAULT_QUANTISATION in files else next(iter(files), "")
    )
    if quantisation not in files:
        raise ConfigError(
            f"{entry.name} has no public file in {quantisation or 'any quantisation'}; "
            f"there are: {', '.join(files) or 'none'}",
        )
    file = files[quantisation]
    source = HubSource(file.repository, file.file, DEFAULT_REVISION, token)
    return Target(source, f"{entry.name}-{quantisation}", entry.name)
