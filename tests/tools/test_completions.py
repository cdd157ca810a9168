"""Completions, as the shells themselves take them."""

import shutil
import subprocess
from pathlib import Path

import pytest

SHARE = Path(__file__).parents[2] / "share"
BASH = SHARE / "bash-completion/completions/edged"
ZSH = SHARE / "zsh/site-functions/_edged"
FISH = SHARE / "fish/vendor_completions.d/edged.fish"

LINES = [
    ("edged mod", {"models"}),
    ("edged models ", {"convert", "list", "pull", "rm", "shape", "show", "use", "verify"}),
    ("edged models p", {"pull"}),
    ("edged --config other.toml models p", {"pull"}),
    ("edged plan --kv q", {"q8_0", "q4_0"}),
    ("edged plan --sy", {"--systemd-dropin"}),
    ("edged models rm --y", {"--yes"}),
    ("edged broker acl --format ", {"dynsec", "aclfile"}),
    ("edged ask --node ", set[str]()),
    ("edged config check --no", set[str]()),
    ("edged models show no-such-", set[str]()),
    ("edged plan --file weights/p", {"weights/phi.gguf"}),
    ("edged --config set", {"set up.toml"}),
    ("edged models list wei", {"weights"}),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/phi.gguf").touch()
    (tmp_path / "set up.toml").touch()
    return tmp_path


def output(*command: str, cwd: Path | None = None) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    assert run.stderr == ""
    return run.stdout


def offered(lines: str) -> set[str]:
    return {line.split("\t")[0].rstrip("/") for line in lines.splitlines()}


def test_bash_takes_it_without_a_word() -> None:
    assert output("bash", "-n", str(BASH)) == ""


def test_bash_knows_whom_to_ask() -> None:
    assert output("bash", "-c", f"source {BASH}; complete -p edged") == (
        "complete -F _edged edged\n"
    )


@pytest.mark.parametrize(("line", "words"), LINES, ids=[line for line, _ in LINES])
def test_bash_offers(line: str, words: set[str], folder: Path) -> None:
    typed = " ".join(f"'{word}'" for word in line.split(" "))
    script = (
        f"source {BASH}; COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        '_edged; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    assert offered(output("bash", "-c", script, cwd=folder)) - {""} == words


def test_fish_takes_it_without_a_word() -> None:
    assert shutil.which("fish"), "tools/setup dev installs fish"
    assert output("fish", "--no-execute", str(FISH)) == ""


@pytest.mark.parametrize(("line", "words"), LINES, ids=[line for line, _ in LINES])
def test_fish_offers(line: str, words: set[str], folder: Path) -> None:
    script = f"source {FISH}; complete --do-complete '{line}'"

    assert offered(output("fish", "--no-config", "-c", script, cwd=folder)) == words


def test_zsh_takes_it_without_a_word() -> None:
    assert shutil.which("zsh"), "tools/setup dev installs zsh"
    assert output("zsh", "-n", str(ZSH)) == ""


def test_zsh_finds_it_by_its_name() -> None:
    script = f"fpath=({ZSH.parent} $fpath); autoload -U compinit; compinit -u -D; "

    assert output("zsh", "-f", "-c", f'{script} print "$_comps[edged]"') == "_edged\n"
