"""What others have said, made fit for a terminal: characters that steer it are left out."""

import sys
import unicodedata

_KEPT = "\n\t"


def harmless(text: str) -> str:
    """Without control characters but ends of lines and tabs: neither ESC nor its one-byte kin."""
    return "".join(
        character
        for character in text
        if character in _KEPT or unicodedata.category(character) != "Cc"
    )


def for_stdout(text: str) -> str:
    """``harmless`` on a terminal; as it is in a file or a pipe, where it is data."""
    return harmless(text) if sys.stdout.isatty() else text
