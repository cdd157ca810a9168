"""Parts of a file over HTTP: how they are asked for, and what can go wrong."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled

from edged.errors import PullError

# A body that is encoded would have another length, and could not be resumed.
PLAIN: Final = {"Accept-Encoding": "identity"}

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+)")
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Interrupted(PullError):
    """The connection failed in a way that another try may not."""


@dataclass(frozen=True)
class Offer:
    """What a source says that it has."""

    source: str
    """Names this very content, without secrets; can be pulled again."""
    size_bytes: int | None
    version: str | None
    """Two parts of the same version fit together; ``None``: no two parts do."""
    sha256: str | None
    sha256_from: Literal["hub", "computed"] = "computed"


@dataclass(frozen=True)
class Reply:
    """The content from ``start_bytes``: where asked for, or from 0 when it is another by now."""

    start_bytes: int
    size_bytes: int | None
    version: str | None
    chunks: Iterator[bytes]


@contextlib.contextmanager
def network(target: str, *, first: bool = False) -> Iterator[None]:
    """Turns what an HTTP client raises into ``PullError``.

    Where nothing can be reached, a ``first`` request is not worth another try.
    """
    host = urlsplit(constants.ENDPOINT).hostname if target.startswith("hf:") else None
    away = f"{target}: {host or 'the server'} cannot be reached"
    remedy = (
        "check the network, "
        + ("name a mirror with HF_ENDPOINT, " if host else "")
        + "or fetch the file elsewhere and pull file:PATH"
    )
    try:
        yield
    except OfflineModeIsEnabled:
        raise PullError(f"{target}: HF_HUB_OFFLINE is set; unset it, or pull file:PATH") from None
    except httpx2.ConnectError as e:
        raise (PullError if first else Interrupted)(f"{away}: {e}; {remedy}") from None
    except httpx2.TimeoutException:
        raise Interrupted(f"{away}: it does not answer in time; {remedy}") from None
    except (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError) as e:
        raise Interrupted(f"{target}: the connection broke: {e or type(e).__name__}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as e:
        raise PullError(f"{target}: cannot be fetched: {type(e).__name__}; check it") from None


@contextlib.contextmanager
def get(
    url: str, headers: dict[str, str], start_bytes: int, target: str
) -> Iterator[httpx2.Response]:
    """A GET whose body comes while it is read, redirects followed."""
    wanted = {"Range": f"bytes={start_bytes}-"} if start_bytes else {}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with contextlib.ExitStack() as stack:
        with network(target):
            response = stack.enter_context(
                get_session().stream(
                    "GET",
                    url,
                    headers=headers | PLAIN | wanted,
                    timeout=timeout,
                    follow_redirects=True,
                )
            )
        if response.status_code != 416:
            yield response
            return
    # What is here is longer than what is there: another content.
    with get(url, headers, 0, target) as response:
        yield response


def reply(
    response: httpx2.Response, offer: Offer, start_bytes: int, *, version: str | None
) -> Reply:
    start, size = 0, length(response)
    if response.status_code == 206:
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not span or int(span[1]) != start_bytes:
            raise PullError(f"{offer.source}: the server sends another part than was asked for")
        start, size = start_bytes, int(span[2])

    def chunks() -> Iterator[bytes]:
        with network(offer.source):
            yield from response.iter_raw()

    return Reply(start, size, version, chunks())


def length(response: httpx2.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def validator(response: httpx2.Response) -> str | None:
    """What ``If-Range`` takes (RFC 9110, 13.1.5): a strong ETag, else the time of the change."""
    tag: str = response.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    changed: str | None = response.headers.get("Last-Modified")
    return changed


def status_error(status: int, target: str) -> PullError:
    if status in _PASSING:
        return Interrupted(f"{target}: the server answers with the status {status}; try later")
    return PullError(f"{target}: the server answers with the status {status}")
