"""Write all that is generated; with ``--check``, only name what differs (exit code 1)."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tools.reference import (
    bash,
    commands,
    commands_page,
    fish,
    man,
    messages_page,
    settings_page,
    zsh,
)

ROOT: Final = Path(__file__).parents[2]
SHARE: Final = "share"
"""What lies there is installed to ``share/`` of the virtual environment, at the same place."""


def generated(root: Path = ROOT) -> Mapping[Path, str]:
    """Each file with what belongs into it. ``docs/settings.md`` keeps what others wrote in it."""
    edged = commands.edged()
    settings = root / "docs/settings.md"
    made_of: Mapping[str, Callable[[commands.Command], str]] = {
        "docs/reference/commands.md": commands_page.page,
        f"{SHARE}/man/man1/edged.1": man.page,
        f"{SHARE}/bash-completion/completions/edged": bash.script,
        f"{SHARE}/zsh/site-functions/_edged": zsh.script,
        f"{SHARE}/fish/vendor_completions.d/edged.fish": fish.script,
    }
    return {
        settings: settings_page.filled_in(settings.read_text("utf-8")),
        root / "docs/reference/messages.md": messages_page.page(),
        **{root / name: make(edged) for name, make in made_of.items()},
    }


def differing(files: Mapping[Path, str]) -> list[Path]:
    """The files that are not what they should be, or not there."""
    return [
        file for file, text in files.items() if not file.exists() or file.read_text("utf-8") != text
    ]


def main() -> int:
    files = generated()
    old = differing(files)
    if "--check" not in sys.argv:
        for file in old:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(files[file], "utf-8")
            print("written:", file.relative_to(ROOT))
        return 0
    for file in old:
        print(f"{file.relative_to(ROOT)} is not what the code says; python -m tools.reference")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
