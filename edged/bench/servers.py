"""Other servers of the same weights, over their OpenAI-like HTTP interface."""

import http.client
import importlib.metadata
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edged.bench.figures import Answer, Arrival
from edged.bench.sides import START_S, Child, Setup
from edged.engine.frames import Load
from edged.errors import EdgedError, EngineUnavailable

SILENCE_S = 600.0
LLAMA_SERVER = "llama-server"
_GGML_TYPES = {"q4_0": 2, "q8_0": 8}
"""Numbers of ggml's enum ggml_type."""
_MODULES = {
    "xllamacpp": ("xllamacpp",),
    "llama_cpp_server": (
        *("llama_cpp", "uvicorn", "fastapi", "sse_starlette", "starlette_context"),
    ),
}


def require(peer: str) -> None:
    """Raises ``EngineUnavailable`` where a peer is not installed."""
    needed = _MODULES.get(peer, ())
    if peer == LlamaServer.name and shutil.which(LLAMA_SERVER) is None:
        raise EngineUnavailable(
            f"there is no {LLAMA_SERVER} on the path; `python -m benchmarks.engine.build_peer "
            "FOLDER` builds it there"
        )
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        raise EngineUnavailable(
            f"{peer} is not installed (there is no {', '.join(missing)}); install it with: "
            "pip install 'edged[bench]'"
        )


class _HttpServer:
    """What both servers have in common: a process, an address, the clients."""

    name: str

    def __init__(self, setup: Setup, load: Callable[[], Load], folder: Path) -> None:
        """``load``: what edged's worker was told to load, once it was told."""
        self._setup = setup
        self._load = load
        self._folder = folder
        self._child: Child | None = None
        self._host = "127.0.0.1"
        self._port = 0
        self._facts: dict[str, object] = {}

    @property
    def facts(self) -> Mapping[str, object]:
        return self._facts

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def stop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def ask(self, prompts: Sequence[str], max_tokens: int) -> list[Answer]:
        with ThreadPoolExecutor(len(prompts)) as clients:
            return list(clients.map(lambda text: self._ask(text, max_tokens), prompts))

    def _ask(self, prompt: str, max_tokens: int) -> Answer:
        """One client: a streamed chat completion."""
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        connection = http.client.HTTPConnection(self._host, self._port, timeout=SILENCE_S)
        connection.connect()
        asked_s = time.monotonic()
        try:
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps(body),
                {"Content-Type": "application/json"},
            )
            reply = connection.getresponse()
            if reply.status != http.HTTPStatus.OK:
                raise EdgedError(f"{self.name} answers {reply.status}: {reply.read(500)!r}")
            return answer_of(asked_s, _events(reply))
        except (OSError, http.client.HTTPException) as error:
            assert self._child is not None
            raise self._child.failure(f"{self.name} ({error})") from None
        finally:
            connection.close()


class Xllamacpp(_HttpServer):
    """``Side``: llama.cpp's server, from the package xllamacpp."""

    name = "xllamacpp"

    def start(self) -> None:
        self._child = Child(
            [sys.executable, "-m", "edged.bench.xllamacpp_server"],
            self._folder / "xllamacpp.log",
            piped=True,
        )
        order = {
            "model": str(self._setup.model),
            "ctx": self._setup.ctx,
            "slots": self._setup.clients,
            "threads": self._setup.threads,
            "kv_type": self._load().kv_type,
        }
        self._child.write(json.dumps(order))
        said = json.loads(self._child.read("xllamacpp's start"))
        self._port = urlsplit(said["address"]).port or 0
        self._facts = said["facts"]


class LlamaServer(_HttpServer):
    """``Side``: llama.cpp's server as a program on the path, however it was built."""

    name = "llama_server"

    def start(self) -> None:
        self._port = _free_port()
        setup, kv_type = self._setup, self._load().kv_type
        command = [LLAMA_SERVER, "--model", str(setup.model)]
        command += ["--host", self._host, "--port", str(self._port)]
        command += ["--ctx-size", str(setup.ctx * setup.clients), "--parallel", str(setup.clients)]
        # As for xllamacpp: every slot as much as edged's, and nothing kept for repeated prompts.
        command += ["--no-kv-unified", "--fit", "off", "--cache-ram", "0", "--skip-chat-parsing"]
        command += ["--cache-type-k", kv_type, "--cache-type-v", kv_type, "--no-ui", "--offline"]
        if setup.threads is not None:
            command += ["--threads", str(setup.threads), "--threads-batch", str(setup.threads)]
        log = self._folder / "llama_server.log"
        self._child = Child(command, log)
        until_s = time.monotonic() + START_S
        while not self._child.has_ended and time.monotonic() < until_s:
            with suppress(OSError, http.client.HTTPException):
                if _answers(self._host, self._port, "/health"):
                    self._facts = _said(_version() + log.read_text("utf-8", "replace"))
                    return
            time.sleep(0.1)
        raise self._child.failure("llama-server's start")


class LlamaCppServer(_HttpServer):
    """``Side``: the server of llama-cpp-python, which answers one prompt after another."""

    name = "llama_cpp_server"

    def start(self) -> None:
        self._port = _free_port()
        threads = self._setup.threads
        command = [sys.executable, "-m", "llama_cpp.server", "--model", str(self._setup.model)]
        command += ["--host", self._host, "--port", str(self._port)]
        command += ["--n_ctx", str(self._setup.ctx), "--logits_all", "False"]
        # Else a second client's prompt ends the first one's answer.
        command += ["--interrupt_requests", "False", "--verbose", "False"]
        if (kv_type := self._load().kv_type) != "f16":
            number = str(_GGML_TYPES[kv_type])
            command += ["--type_k", number, "--type_v", number, "--flash_attn", "True"]
        if threads is not None:
            command += ["--n_threads", str(threads), "--n_threads_batch", str(threads)]
        self._child = Child(command, self._folder / "llama_cpp_server.log")
        until_s = time.monotonic() + START_S
        while not self._child.has_ended and time.monotonic() < until_s:
            with suppress(OSError), socket.create_connection((self._host, self._port), 1):
                self._facts = {
                    "version": importlib.metadata.version("llama-cpp-python"),
                    "build": llama_cpp_build(),
                }
                return
            time.sleep(0.1)
        raise self._child.failure("llama_cpp.server's start")


def answer_of(asked_s: float, events: Iterator[tuple[float, dict[str, Any]]]) -> Answer:
    """From the events of one streamed completion, each with when it came.

    Each event with text counts as a token, and the server's own count, where it gives one, as that
    of the whole answer, which a stop token without text belongs to.
    """
    arrivals: list[Arrival] = []
    usage: dict[str, Any] = {}
    done_s = asked_s
    for now_s, event in events:
        usage = event.get("usage") or usage
        for choice in event.get("choices", ()):
            done_s = now_s
            if choice.get("delta", {}).get("content"):
                arrivals.append(Arrival(now_s, len(arrivals) + 1))
    return Answer(
        asked_s=asked_s,
        arrivals=tuple(arrivals),
        done_s=done_s,
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", len(arrivals)),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
    )


def _events(reply: http.client.HTTPResponse) -> Iterator[tuple[float, dict[str, Any]]]:
    """Server-sent events, each with the moment when it was there."""
    for line in reply:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            now_s = time.monotonic()
            yield now_s, json.loads(line[6:])


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    finally:
        connection.close()


def _version() -> str:
    done = subprocess.run(  # noqa: S603 (no more than its name)
        [LLAMA_SERVER, "--version"], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def _said(log: str) -> dict[str, object]:
    """Version and build, of what the server says at its start; newer ones say only the first."""
    version = re.search(r"^(?:build(?:_info)?|version): *(.+)$", log, re.MULTILINE)
    system = re.search(r"^(?:system_info: *|built with )(.+)$", log, re.MULTILINE)
    return {
        "version": version[1].strip() if version else "unknown",
        "build": system[1].strip() if system else None,
    }


def llama_cpp_build() -> str | None:
    """How the llama.cpp of this environment was built, as it says, in a process of its own."""
    words = (
        "import llama_cpp; from edged.engine import llama_backends; llama_backends.start(); "
        "print(llama_cpp.llama_print_system_info().decode())"
    )
    done = subprocess.run(  # noqa: S603 (our own words)
        [sys.executable, "-c", words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
