"""Wheels of other versions of edged: as good as this one, or broken on purpose."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

VERSION = "0.1.0"

DOES_NOT_START = {
    "edged/cli/run.py": (
        "import click\n",
        "import click\n\nraise SystemExit('broken on purpose')\n",
    ),
}
CANNOT_ANSWER = {
    "edged/dispatch.py": (
        '        """Give free slots to those whose turn it is."""\n',
        "        return  # broken on purpose\n",
    ),
}
ANSWERS_SLOWLY = {
    "edged/engine/llama_cpp.py": (
        "    def decode(self, batch: Sequence[BatchChunk]) -> None:\n",
        (
            "    def decode(self, batch: Sequence[BatchChunk]) -> None:\n"
            "        tokens = sum(len(chunk.tokens) for chunk in batch)\n"
            "        __import__('time').sleep({slow_s} * tokens)  # broken on purpose\n"
        ),
    ),
}

Edits = Mapping[str, tuple[str, str]]


def other_version(wheels: Path, version: str, edits: Edits) -> None:
    """``wheels/VERSION/…`` beside those of this version, with ``edits`` of its source."""
    for folder in (wheels / VERSION).iterdir():
        made = wheels / version / folder.name
        made.mkdir(parents=True)
        for wheel in folder.iterdir():
            if wheel.name.startswith("edged-"):
                _write(wheel, made / wheel.name.replace(VERSION, version), version, edits)
            else:
                shutil.copy(wheel, made)


def _write(wheel: Path, target: Path, version: str, edits: Edits) -> None:
    left = set(edits)
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            name = info.filename.replace(f"edged-{VERSION}.", f"edged-{version}.")
            content = old.read(info)
            if name.endswith(".dist-info/RECORD"):
                # Without checksums, which are not looked at.
                lines = content.decode().replace(f"edged-{VERSION}.", f"edged-{version}.")
                names = (line.rsplit(",", 2)[0] for line in lines.splitlines())
                content = "".join(f"{each},,\n" for each in names).encode()
            elif name.endswith(".dist-info/METADATA"):
                content = content.replace(
                    f"\nVersion: {VERSION}\n".encode(), f"\nVersion: {version}\n".encode()
                )
            elif name == "edged/__init__.py":
                content = content.replace(VERSION.encode(), version.encode())
            elif name in edits:
                before, after = edits[name]
                assert content.count(before.encode()) == 1, f"{name} has changed: {before!r}"
                content = content.replace(before.encode(), after.encode())
                left.remove(name)
            new.writestr(name, content)
    assert not left, f"the wheel has no {left}"
