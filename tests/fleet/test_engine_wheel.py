"""The engine that boards are served: one wheel for every processor of an architecture."""

import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged/wheels/every"


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")
def test_the_demo_answers_with_it(tmp_path: Path) -> None:
    subprocess.run(
        [str(ROOT / "tools/engine_wheel"), platform.machine(), str(CACHE)],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
    )
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run(
        [
            *(str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")),
            *("--only-binary=llama-cpp-python", f"--find-links={CACHE}", f"{ROOT}[llama-cpp]"),
        ],
        check=True,
    )
    kernels = list(tmp_path.glob("venv/lib/*/site-packages/llama_cpp/lib/libggml-cpu-*.so"))

    said = subprocess.run(
        [str(python.with_name("edged")), "demo"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout

    assert len(kernels) > 1
    assert "on llama_cpp" in said
    assert "I can look after the devices in your home" in said
