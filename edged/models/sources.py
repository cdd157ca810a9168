"""Where models are fetched from: the hub, any URL, a file. Each offers one file, from any byte.

huggingface_hub 2.x throws away what had arrived when its process dies (seen in its source,
``_download_to_tmp_and_move``), so it is asked for the facts (commit, size, SHA-256, errors) and
for its HTTP client, and the bytes are read here.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # has no __all__

import edged
from edged.errors import PullError
from edged.models.store import Manifest
from edged.models.transfer import (
    PLAIN,
    Offer,
    Reply,
    get,
    length,
    network,
    reply,
    status_error,
    validator,
)

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_READ_BYTES: Final = 1 << 20


class Source(Protocol):
    """One file, somewhere. ``target`` names it as the operator did, without secrets."""

    @property
    def target(self) -> str: ...

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        ...

    def offer(self) -> Offer:
        """Asks without fetching. Raises ``PullError``."""
        ...

    def open(self, offer: Offer, start_bytes: int) -> contextlib.AbstractContextManager[Reply]:
        """Fetches. Raises ``PullError``, also while chunks are read."""
        ...


@dataclass(frozen=True)
class HubSource:
    """A file of a repository on the hub, or on the mirror that ``HF_ENDPOINT`` names."""

    repository: str
    file: str
    revision: str
    token: str | None

    @property
    def target(self) -> str:
        at = "" if self.revision == constants.DEFAULT_REVISION else f"@{self.revision}"
        return f"hf:{self.repository}/{self.file}{at}"

    @property
    def stem(self) -> str:
        return Path(self.file).name.removesuffix(".gguf")

    def offer(self) -> Offer:
        url = hf_hub_url(self.repository, self.file, revision=self.revision)
        with network(self.target, first=True):
            try:
                found = get_hf_file_metadata(
                    url, headers=self._headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT
                )
            except HfHubHTTPError as e:
                raise self._refused(e.response) from None
        sha256 = found.etag if found.etag and _SHA256.fullmatch(found.etag) else None
        at = f"@{found.commit_hash}" if found.commit_hash else ""
        return Offer(
            source=f"hf:{self.repository}/{self.file}{at}",
            size_bytes=found.size,
            version=sha256 or found.commit_hash,
            sha256=sha256,
            sha256_from="hub" if sha256 else "computed",
        )

    @contextlib.contextmanager
    def open(self, offer: Offer, start_bytes: int) -> Iterator[Reply]:
        # The commit that was offered, so that the file cannot change in between. Asked of the hub
        # each time, since the address that it redirects to expires; httpx keeps the token from
        # other hosts.
        revision = offer.source.partition("@")[2] or self.revision
        url = hf_hub_url(self.repository, self.file, revision=revision)
        with get(url, self._headers(), start_bytes, self.target) as response:
            if response.is_error:
                raise self._refused(response)
            yield reply(response, offer, start_bytes, version=offer.version)

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = build_hf_headers(
            token=self.token, library_name="edged", library_version=edged.__version__
        )
        return headers

    def _refused(self, response: httpx2.Response) -> PullError:
        status = response.status_code
        code = response.headers.get("X-Error-Code", "")
        if status in {401, 403} or code in {"GatedRepo", "RepoNotFound"}:
            if "authorization" in response.request.headers:
                return PullError(
                    f"{self.target}: the hub refuses it with the token that is set ({status}): "
                    "accept the model's conditions on its page, check its name, or renew the "
                    "token (the credential edged.model.hub_token, or HF_TOKEN)",
                )
            return PullError(
                f"{self.target}: the hub does not show it without a token ({status}): it is "
                "gated, private, or no such repository; check its name, accept its conditions on "
                "its page, and set a token as the credential edged.model.hub_token, or HF_TOKEN",
            )
        if code == "RevisionNotFound":
            return PullError(f"{self.target}: {self.repository} has no revision {self.revision}")
        if status == 404:
            return PullError(f"{self.target}: there is no such file; {self._others()}")
        return status_error(status, self.target)

    def _others(self) -> str:
        url = f"{constants.ENDPOINT}/api/models/{self.repository}/revision/{self.revision}"
        files: list[str] = []
        # Only to help: whatever goes wrong here, the file is missing all the same.
        with contextlib.suppress(httpx2.HTTPError, OSError, ValueError, TypeError, KeyError):
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            answer = get_session().get(url, headers=self._headers(), timeout=timeout).json()
            files = [str(each["rfilename"]) for each in answer["siblings"]]
        weights = [file for file in files if file.endswith(".gguf")]
        if not weights:
            return f"look at what {self.repository} holds"
        more = f" and {len(weights) - 20} more" if len(weights) > 20 else ""
        return f"{self.repository} has: {', '.join(weights[:20])}{more}"


@dataclass(frozen=True)
class UrlSource:
    """A file on any web server; nobody vouches for it, so its SHA-256 is computed on arrival."""

    url: str

    @property
    def target(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def stem(self) -> str:
        return Path(unquote(urlsplit(self.url).path)).name.removesuffix(".gguf")

    def offer(self) -> Offer:
        with network(self.target, first=True):
            response = get_session().head(
                self.url, headers=PLAIN, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        if response.status_code in {403, 405, 501}:  # signed addresses are for GET alone
            return Offer(self.target, None, None, None)
        if response.is_error:
            raise self._refused(response)
        return Offer(self.target, length(response), validator(response), None)

    @contextlib.contextmanager
    def open(self, offer: Offer, start_bytes: int) -> Iterator[Reply]:
        headers = {"If-Range": offer.version} if start_bytes and offer.version else {}
        with get(self.url, headers, start_bytes, self.target) as response:
            if response.is_error:
                raise self._refused(response)
            yield reply(response, offer, start_bytes, version=validator(response))

    def _refused(self, response: httpx2.Response) -> PullError:
        status = response.status_code
        if status in {401, 403}:
            return PullError(
                f"{self.target}: the server refuses it ({status}); put what it wants into the URL "
                "(https://USER:PASSWORD@…), or fetch the file by other means and pull file:PATH",
            )
        if status in {404, 410}:
            return PullError(f"{self.target}: there is no such file ({status}); check the URL")
        return status_error(status, self.target)


@dataclass(frozen=True)
class FileSource:
    """A file that is here; with a manifest beside it (from another store), held to that."""

    path: Path

    @property
    def target(self) -> str:
        return f"file:{self.path}"

    @property
    def stem(self) -> str:
        return self.path.name.removesuffix(".gguf")

    def offer(self) -> Offer:
        try:
            found = self.path.stat()
        except OSError as e:
            raise self._unreadable(e) from None
        if not self.path.is_file():
            raise PullError(f"{self.target}: is no file; name the .gguf file itself")
        version = f"{found.st_size}-{found.st_mtime_ns}"
        try:
            beside = Manifest.model_validate_json(self.path.with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            return Offer(self.target, found.st_size, version, None)
        return Offer(
            beside.source, found.st_size, version, beside.sha256, sha256_from=beside.sha256_from
        )

    @contextlib.contextmanager
    def open(self, offer: Offer, start_bytes: int) -> Iterator[Reply]:
        try:
            file = self.path.open("rb")
            file.seek(start_bytes)
        except OSError as e:
            raise self._unreadable(e) from None

        def chunks() -> Iterator[bytes]:
            try:
                while chunk := file.read(_READ_BYTES):
                    yield chunk
            except OSError as e:
                raise self._unreadable(e) from None

        with file:
            yield Reply(start_bytes, offer.size_bytes, offer.version, chunks())

    def _unreadable(self, error: OSError) -> PullError:
        return PullError(f"{self.target}: cannot be read: {error.strerror}")
