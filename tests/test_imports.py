"""Imports point one way, and the daemon carries no library that it must not."""

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edged"

# As architecture.md has them, the bottom first. A room may use those of the levels below
# it; ``spool``, say, may not use ``engine``.
LEVELS = (
    ("allocator", "errors"),
    ("messages", "settings"),
    ("hardware", "models", "minute_log"),
    ("engine", "throttle", "spool"),
    ("stream", "prompt_log"),
    ("job",),
    ("answers", "dispatch"),
    ("pipeline", "transports", "telemetry"),
    ("governing", "reloading"),
    ("daemon",),
    ("bench", "simulation"),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}

FOREIGN_TO_THE_DAEMON = (
    *("numpy", "llama_cpp", "ctransformers", "rich", "jinja2", "huggingface_hub", "httpx2"),
)


def module_name(path: Path) -> str:
    parts = ("edged", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> set[str]:
    """The modules of edged that a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return {name for name in found if name.split(".")[0] == "edged"}


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "edged"])
def test_every_room_has_its_level(module: str) -> None:
    assert room(module) in LEVEL


@pytest.mark.parametrize("module", [name for name in MODULES if name != "edged"])
def test_a_module_imports_from_its_own_room_and_from_below(module: str) -> None:
    wrong = [
        name
        for name in imported(module)
        if name != "edged"
        and room(name) != room(module)
        and LEVEL[room(name)] >= LEVEL[room(module)]
    ]

    assert wrong == []


def test_the_package_itself_imports_nothing() -> None:
    assert imported("edged") == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: imported(name) - {"edged"} for name in MODULES}

    assert tuple(graphlib.TopologicalSorter(graph).static_order())


def test_every_module_that_is_imported_exists() -> None:
    assert set().union(*map(imported, MODULES)) - set(MODULES) == set()


def test_the_daemon_carries_no_inference_library_nor_what_only_people_look_at() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import edged.daemon, json, sys; print(json.dumps([*sys.modules]))"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout

    assert (
        sorted({name.split(".")[0] for name in json.loads(loaded)} & {*FOREIGN_TO_THE_DAEMON}) == []
    )
