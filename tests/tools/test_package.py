"""What is published: the sdist, the wheel that is built from it, and what a machine has of that."""

import email.parser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import edged

ROOT = Path(__file__).parents[2]
DATA = f"edged-{edged.__version__}.data/data/share"


@dataclass(frozen=True)
class Package:
    """What was built."""

    wheel: Path
    sdist: Path

    def in_wheel(self) -> set[str]:
        return set(zipfile.ZipFile(self.wheel).namelist())

    def in_sdist(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """As ``make package`` builds it."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    subprocess.run(build, check=True, capture_output=True)
    return Package(*folder.glob("*.whl"), *folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def prefix(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is installed, without what it requires."""
    folder = tmp_path_factory.mktemp("prefix")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    alone = ("--no-index", "--no-deps", "--ignore-installed", "--prefix", str(folder))
    subprocess.run([*pip, *alone, str(package.wheel)], check=True)
    return folder


def run(prefix: Path, *arguments: str) -> str:
    """The installed edged, with what it requires from here."""
    scheme = {"base": str(prefix), "platbase": str(prefix)}
    installed = sysconfig.get_path("purelib", "posix_prefix", scheme)
    path = os.pathsep.join(filter(None, (installed, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=prefix,
    )
    return done.stdout


def test_the_wheel_has_every_hardware_profile(package: Package) -> None:
    profiles = {f"edged/hw_profiles/{file.name}" for file in ROOT.glob("hw_profiles/*.toml")}

    assert profiles
    assert profiles - package.in_wheel() == set()


def test_the_wheel_has_the_bundled_model_with_its_card(package: Package) -> None:
    names = {f"edged/assets/{name}" for name in ("edged-tiny-phi3-q4_0.gguf", "MODEL_CARD.md")}

    assert names - package.in_wheel() == set()


def test_the_wheel_has_units_man_page_and_completions_as_they_are_here(package: Package) -> None:
    here = {
        f"{DATA}/{'edged/' if folder == 'systemd' else ''}{file.relative_to(base)}": file
        for folder, base in (("systemd", ROOT), ("share", ROOT / "share"))
        for file in (ROOT / folder).rglob("*")
        if file.is_file()
    }
    with zipfile.ZipFile(package.wheel) as wheel:
        there = {name: wheel.read(name) for name in wheel.namelist() if name.startswith(DATA)}

    assert there == {name: file.read_bytes() for name, file in here.items()}


def test_the_wheel_has_nothing_but_edged(package: Package) -> None:
    tops = {name.partition("/")[0] for name in package.in_wheel()}
    version = f"edged-{edged.__version__}"

    assert tops == {"edged", f"{version}.data", f"{version}.dist-info"}


def test_the_sdist_has_all_that_the_checkout_has(package: Package) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    if tracked == [""]:
        pytest.skip("this is no checkout")
    of_checkout = {name for name in tracked if name.startswith(".") or not name}

    assert set(tracked) - of_checkout - package.in_sdist() == set()


def test_the_installed_command_finds_its_profiles_and_units(prefix: Path) -> None:
    where = run(prefix, "-c", "import edged; print(edged.__file__)")
    assert where.startswith(str(prefix))
    assert "pi5-8gb" in run(prefix, "-m", "edged", "profiles", "list")
    assert (prefix / "share/edged/systemd/edged.service").is_file()


def test_the_version_comes_from_one_place(package: Package, prefix: Path) -> None:
    with zipfile.ZipFile(package.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.parser.BytesParser().parsebytes(wheel.read(name))
    found = {
        "wheel": package.wheel.name.split("-")[1],
        "metadata": metadata["Version"],
        "sdist": package.sdist.name.removeprefix("edged-").removesuffix(".tar.gz"),
        "command": run(prefix, "-m", "edged", "version").split()[1],
        **{
            str(file.relative_to(ROOT)): yaml.safe_load(file.read_text())["version"]
            for file in ROOT.glob("ansible/**/galaxy.yml")
        },
    }

    assert set(found.values()) == {edged.__version__}, found


# The man page


PAGE = ROOT / "share/man/man1/edged.1"


def test_the_man_page_is_without_fault() -> None:
    assert shutil.which("mandoc"), "tools/setup dev installs mandoc"
    lint = ["mandoc", "-T", "lint", "-W", "style", str(PAGE)]
    run = subprocess.run(lint, capture_output=True, text=True, check=False)
    # It has no date: made of the code, it is as old as that.
    faults = [line for line in run.stdout.splitlines() if "missing date" not in line]

    assert faults == []


def test_the_man_page_reads_as_text() -> None:
    page = subprocess.run(
        ["mandoc", "-T", "ascii", str(PAGE)], capture_output=True, text=True, check=True
    ).stdout
    text = re.sub(r".\x08", "", page)

    assert "edged models pull [OPTIONS] TARGET" in text
    assert "EDGED_MQTT__HOST" in text
