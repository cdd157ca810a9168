"""What SIGHUP changes without a restart, and what it cannot."""

from dataclasses import dataclass
from typing import Final

from edged.settings import Settings

LIVE: Final = ("sampling", "chat", "queue", "spool", "session", "drain_s", "log")
"""Settings and sections that are looked at whenever they are needed."""


@dataclass(frozen=True)
class Reloaded:
    """The settings to go on with; by name, what has changed, and what would need a restart."""

    settings: Settings
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def reloaded(now: Settings, read: Settings) -> Reloaded:
    """What holds after the settings were read again."""
    differing = [
        name for name in Settings.model_fields if getattr(now, name) != getattr(read, name)
    ]
    changed = tuple(name for name in differing if name in LIVE)
    return Reloaded(
        now.model_copy(update={name: getattr(read, name) for name in changed}),
        changed,
        tuple(name for name in differing if name not in LIVE),
    )
