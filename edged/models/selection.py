"""Which model of the store the operator has chosen, kept where daemon and commands find it.

``edged models use`` writes it and wakes the daemon, which writes it back where the chosen one
turns out not to serve.
"""

import json
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Final

from edged.errors import ConfigError
from edged.models.whole import write_whole

_FILE: Final = "model.json"


@dataclass(frozen=True)
class Selection:
    """``model`` is a name in the store, ``None`` leaves it to edged.

    ``failed`` is what was chosen last and did not serve, ``reason`` why. ``serves`` is the daemon's
    word for it, what it has served since.
    """

    model: str | None = None
    failed: str | None = None
    reason: str | None = None
    serves: str | None = None


def read_selection(state_dir: Path) -> Selection:
    """What was chosen; nothing where there is no file. Raises ``ConfigError`` for a broken one."""
    path = state_dir / _FILE
    try:
        found = json.loads(path.read_text("utf-8"))
        selection = Selection(**{each.name: found.get(each.name) for each in fields(Selection)})
        if not all(isinstance(each, str | None) for each in astuple(selection)):
            raise ValueError("its values are no names")  # noqa: TRY301 (answered below)
    except FileNotFoundError:
        return Selection()
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); choose again with: edged models use NAME"
        ) from None
    return selection


def write_selection(state_dir: Path, selection: Selection) -> None:
    """Raises ``ConfigError`` where it cannot be written."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        write_whole(state_dir / _FILE, json.dumps(asdict(selection)))
    except OSError as error:
        raise ConfigError(
            f"{state_dir / _FILE} cannot be written: {error.strerror}; run this as the user that "
            "edged runs as"
        ) from None
