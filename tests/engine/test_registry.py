"""Choosing an engine: what is known, what to install, and no bad file near native code."""

import sys
from pathlib import Path

import pytest

from edged.engine import registry
from edged.engine.echo import EchoEngine
from edged.engine.frames import Load
from edged.engine.registry import ENGINE_NAMES, open_engine
from edged.errors import EngineUnavailable, ModelFileError


def load(engine: str, path: Path | None = None) -> Load:
    return Load(engine, None if path is None else str(path), "", None, 1, 1, 0)


def test_an_engine_of_an_unknown_name_is_refused_with_the_names_that_are_known() -> None:
    with pytest.raises(EngineUnavailable) as caught:
        open_engine(load("llamacpp"))

    assert [name for name in ("llamacpp", *ENGINE_NAMES) if name not in str(caught.value)] == []


def test_the_echo_engine_needs_no_model(tmp_path: Path) -> None:
    assert isinstance(open_engine(load("echo", tmp_path / "absent.gguf")), EchoEngine)


@pytest.mark.parametrize("name", ["auto", "llama_cpp", "ctransformers"])
def test_a_model_file_that_is_not_there_is_said_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match=r"absent\.gguf"):
        open_engine(load(name, tmp_path / "absent.gguf"))


@pytest.mark.parametrize("name", ["auto", "llama_cpp", "ctransformers"])
@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all", b"GGUF\3\0\0\0" * 3])
def test_a_file_that_is_no_model_is_refused_before_an_engine_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)

    def imported(name: str) -> None:
        pytest.fail(f"{name} was asked for")

    monkeypatch.setattr(registry, "_engine_class", imported)

    with pytest.raises(ModelFileError):
        open_engine(load(name, path))


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("llama_cpp", r"pip install 'edged\[llama-cpp\]'"),
        ("ctransformers", r"pip install 'edged\[ctransformers\]'"),
    ],
)
def test_an_engine_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, f"edged.engine.{name}", None)

    with pytest.raises(EngineUnavailable, match=install):
        registry._engine_class(name)
