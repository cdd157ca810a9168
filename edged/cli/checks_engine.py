"""Checks of ``edged doctor``: whether the inference libraries work on this processor."""

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.hardware.health import Finding, failure, not_applicable, ok, warning
from edged.hardware.health_build import build, cpu_flags
from edged.hardware.schema import Profile

PROBE_S: Final = 15.0
_EXTRAS: Final = {"llama_cpp": "edged[llama-cpp]", "ctransformers": "edged[ctransformers]"}


@dataclass(frozen=True)
class Probe:
    """What became of an engine that was tried out in a process of its own."""

    name: str
    is_installed: bool
    version: str | None = None
    system_info: str = ""
    sees_gpu: bool = False
    problem: str | None = None
    """Why it gave no token, in words; ``None`` when it did."""


def probe(name: str) -> Probe:
    """Load the engine's library, and let the bundled model give one token."""
    if importlib.util.find_spec(name) is None:
        return Probe(name, is_installed=False)
    with tempfile.TemporaryDirectory(prefix="edged-doctor-") as folder:
        command = [sys.executable, "-m", "edged.cli.engine_probe", name, folder]
        try:
            done = subprocess.run(  # noqa: S603 (our own module)
                command, capture_output=True, text=True, timeout=PROBE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Probe(name, is_installed=True, problem=f"it does not answer: {error}")
    return told(name, done.stdout, done.stderr, done.returncode)


def told(name: str, output: str, errors: str, code: int) -> Probe:
    """What ``edged.cli.engine_probe`` printed, and how it ended."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
    first = lines[0] if lines else {}
    problem = None
    if code < 0:
        when = "while it computes" if lines else "while it is loaded"
        problem = f"it crashes {when} ({signal.Signals(-code).name})"
        if -code == signal.SIGILL:
            problem += ": it was built for another processor"
    elif code or len(lines) < 2:
        problem = errors.strip().rpartition("\n")[2] or f"it ends with code {code}"
    return Probe(
        name,
        is_installed=True,
        version=first.get("version"),
        system_info=first.get("system_info", ""),
        sees_gpu=first.get("gpu", False),
        problem=problem,
    )


def judge(found: Probe, root: Path, remedy: str, *, serves: bool) -> Iterator[Finding]:
    """``serves``: it is the one that the settings choose; ``remedy`` builds it anew."""
    if not found.is_installed:
        if serves:
            yield failure(f"{found.name} is not installed", f"pip install '{_EXTRAS[found.name]}'")
        else:
            yield not_applicable(f"{found.name} is not installed")
        return
    title = f"{found.name} {found.version}" if found.version else found.name
    if found.problem is not None:
        outcome = failure if serves else warning
        yield outcome(f"{title}: {found.problem}", remedy)
    else:
        yield ok(f"{title} works{'' if serves else ', and would serve if it were chosen'}")
    if found.system_info:
        built = build(found.system_info, cpu_flags(root), remedy)
        yield built if serves or built.outcome != "failure" else warning(built.found, remedy)


def rebuild(found: Probe, profile: Profile | None, *, cuda: bool = False) -> str:
    """The command that builds an engine for this machine."""
    if found.name != "llama_cpp":
        return f"pip install --force-reinstall '{_EXTRAS[found.name]}', or use llama_cpp"
    definitions = dict(profile.engine.cmake) if profile else {"GGML_NATIVE": "ON"}
    if cuda:
        definitions["GGML_CUDA"] = "ON"
    flags = " ".join(f"-D{name}={value}" for name, value in definitions.items())
    package = f"llama-cpp-python=={found.version}" if found.version else _EXTRAS["llama_cpp"]
    return (
        f'CMAKE_ARGS="{flags}" pip install --force-reinstall --no-deps --no-cache-dir '
        f"--no-binary llama-cpp-python '{package}'"
    )
