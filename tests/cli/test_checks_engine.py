"""Checks of ``edged doctor``: whether an engine works, and what it was built for."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edged.cli import checks_engine
from edged.hardware.health import failure
from edged.hardware.profile import profile_folders, read_profile

pytestmark = pytest.mark.usefixtures("operator_folder")


def test_the_engine_gives_a_token_and_is_held_against_the_processor() -> None:
    found = checks_engine.probe("llama_cpp")

    assert found.problem is None
    works, built = checks_engine.judge(found, Path("/"), "build", serves=True)
    assert re.fullmatch(r"llama_cpp \d+\.\d+\.\d+ works", works.found)
    assert built.outcome in ("ok", "warning")  # it works, so it has not too much


def test_a_library_that_kills_its_process_is_a_finding() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = checks_engine.told("llama_cpp", killed.stdout, killed.stderr, killed.returncode)

    (finding,) = checks_engine.judge(found, Path("/"), "build it anew", serves=True)

    assert finding == failure(
        "llama_cpp: it crashes while it is loaded (SIGILL): it was built for another processor",
        "build it anew",
    )


def test_a_library_that_crashes_later_is_told_with_its_version() -> None:
    loaded = '{"version": "0.3.36", "system_info": "", "gpu": false}\n'
    found = checks_engine.told("llama_cpp", loaded, "", -signal.SIGSEGV)

    (finding,) = checks_engine.judge(found, Path("/"), "", serves=True)

    assert finding.found == "llama_cpp 0.3.36: it crashes while it computes (SIGSEGV)"


def test_a_library_that_cannot_be_loaded_is_told_in_its_own_words() -> None:
    errors = "Traceback (most recent call last):\n  …\nOSError: libgomp.so.1: cannot open\n"

    found = checks_engine.told("llama_cpp", "", errors, 1)

    assert found.problem == "OSError: libgomp.so.1: cannot open"


def test_an_engine_that_does_not_serve_is_at_most_a_warning() -> None:
    found = checks_engine.told("ctransformers", "", "", -signal.SIGILL)

    (finding,) = checks_engine.judge(found, Path("/"), "", serves=False)

    assert finding.outcome == "warning"


@pytest.mark.parametrize(("serves", "outcome"), [(True, "failure"), (False, "not applicable")])
def test_an_engine_that_is_missing_matters_where_it_is_to_serve(serves: bool, outcome: str) -> None:
    found = checks_engine.probe("no_such_engine")
    assert not found.is_installed

    missing = checks_engine.Probe("llama_cpp", is_installed=False)
    (finding,) = checks_engine.judge(missing, Path("/"), "", serves=serves)

    assert finding.outcome == outcome
    assert not serves or finding.remedy == "pip install 'edged[llama-cpp]'"


def test_an_engine_is_built_anew_as_the_profile_says() -> None:
    found = checks_engine.Probe("llama_cpp", is_installed=True, version="0.3.36")
    orin = read_profile("jetson-orin-nano-8gb", profile_folders()[:1])

    command = checks_engine.rebuild(found, orin)

    assert "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=87" in command
    assert command.endswith("'llama-cpp-python==0.3.36'")
