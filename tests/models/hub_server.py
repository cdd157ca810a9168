"""A hub on loopback: what huggingface_hub asks of one, a CDN of another origin, and faults.

Like the real one, it answers a request for weights with the facts in headers and a redirect to
the CDN, whose address is signed, which honours ranges, and which has ETags of its own.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """With its query."""
    range: str | None
    authorization: str | None
    host: str


@dataclass
class Hub:
    """Files by "owner/repo/name", and what goes wrong next."""

    files: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    """By "owner/repo"; a revision that is none of them is not known."""
    plain: dict[str, bytes] = field(default_factory=dict)
    """What a plain web server has, by path."""
    token: str | None = None
    """Whoever comes without it is refused."""

    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next bodies end too early."""
    statuses: list[int] = field(default_factory=list)
    """What the next requests for a body are answered with instead."""
    flip_at: int | None = None
    """Which byte of a file arrives wrong."""
    pause_s: float = 0
    """Before each chunk."""
    stall_at: int | None = None
    """From which byte of a file nothing is sent, as long as this is set."""
    has_ranges: bool = True
    has_etag: bool = True
    says_length: bool = True
    head_status: int | None = None
    """What a plain web server answers to HEAD with."""
    on_sent: Callable[[int], None] | None = None
    """Is told all bytes of bodies so far, after each chunk."""

    requests: list[Request] = field(default_factory=list)
    sent_bytes: int = 0
    url: str = ""
    cdn_url: str = ""

    def put(self, name: str, content: bytes) -> None:
        """A new commit of "owner/repo" with that file."""
        repository = "/".join(name.split("/")[:2])
        self.files[name] = content
        self.commits[repository] = hashlib.sha1(repository.encode() + content).hexdigest()

    def bodies(self) -> list[Request]:
        """The requests for weights themselves."""
        return [r for r in self.requests if r.method == "GET" and not r.path.startswith("/api/")]

    def on_cdn(self) -> list[Request]:
        return [r for r in self.requests if r.path.startswith("/blob/")]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=s.serve_forever, args=(0.01,)) for s in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = False
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    timeout = 20  # seconds; a client that was killed must not hold its thread

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        hub.requests.append(
            Request(
                self.command,
                self.path,
                self.headers["Range"],
                self.headers["Authorization"],
                self.headers["Host"],
            )
        )
        path = unquote(urlsplit(self.path).path)
        try:
            if path.startswith("/api/models/"):
                self._list(path.removeprefix("/api/models/"))
            elif path.startswith("/blob/"):
                self._blob(path.removeprefix("/blob/"))
            elif "/resolve/" in path:
                self._resolve(*path.removeprefix("/").split("/resolve/"))
            elif path in hub.plain:
                self._plain(hub.plain[path])
            else:
                self._refuse(404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _refuse(self, status: int, code: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _list(self, rest: str) -> None:
        repository, _, _ = rest.partition("/revision/")
        names = [n.removeprefix(f"{repository}/") for n in self.hub.files if repository in n]
        body = json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _resolve(self, repository: str, rest: str) -> None:
        hub = self.hub
        revision, _, file = rest.partition("/")
        if hub.token and self.headers["Authorization"] != f"Bearer {hub.token}":
            return self._refuse(401, "GatedRepo")
        if repository not in hub.commits:
            return self._refuse(401, "RepoNotFound")
        if revision not in {"main", hub.commits[repository]}:
            return self._refuse(404, "RevisionNotFound")
        content = hub.files.get(f"{repository}/{file}")
        if content is None:
            return self._refuse(404, "EntryNotFound")
        if hub.statuses:
            return self._refuse(hub.statuses.pop(0))
        sha256 = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        self.send_header("X-Repo-Commit", hub.commits[repository])
        self.send_header("X-Linked-Etag", f'"{sha256}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Location", f"{hub.cdn_url}/blob/{repository}/{file}?signature=secret")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def _blob(self, name: str) -> None:
        content = self.hub.files[name]
        self._send(content, f'"{hashlib.md5(content).hexdigest()}"')

    def _plain(self, content: bytes) -> None:
        if self.command == "HEAD" and self.hub.head_status:
            return self._refuse(self.hub.head_status)
        if self.command == "GET" and self.hub.statuses:
            return self._refuse(self.hub.statuses.pop(0))
        etag = f'"{hashlib.md5(content).hexdigest()}"' if self.hub.has_etag else None
        return self._send(content, etag)

    def _send(self, content: bytes, etag: str | None) -> None:
        hub, start = self.hub, 0
        wanted = self.headers["Range"] if hub.has_ranges else None
        if wanted and self.headers["If-Range"] in {None, etag}:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content) > 0:
            return self._refuse(416)
        self.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        if hub.says_length:
            self.send_header("Content-Length", str(len(content) - start))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.close_connection = not hub.says_length
        if self.command == "GET":
            self._body(content, start)
        return None

    def _body(self, content: bytes, start: int) -> None:
        hub = self.hub
        end = len(content)
        if hub.cuts:
            end = min(end, start + hub.cuts.pop(0))
            self.close_connection = True
        for at in range(start, end, _CHUNK_BYTES):
            chunk = bytearray(content[at : min(at + _CHUNK_BYTES, end)])
            if hub.flip_at is not None and at <= hub.flip_at < at + len(chunk):
                chunk[hub.flip_at - at] ^= 1
            time.sleep(hub.pause_s)
            while hub.stall_at is not None and at >= hub.stall_at:
                time.sleep(0.005)
            self.wfile.write(chunk)
            hub.sent_bytes += len(chunk)
            if hub.on_sent:
                hub.on_sent(hub.sent_bytes)
