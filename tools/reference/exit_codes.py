"""What the commands' exit codes mean."""

import inspect
from collections.abc import Iterator

from edged.errors import EdgedError, PromptFailure


def exit_codes() -> Iterator[tuple[int, str]]:
    """Each with its meaning, from the failures themselves."""
    yield 0, "All is well."
    yield 1, "Another failure; one line on stderr says which."
    for kind in EdgedError.__subclasses__():
        if kind is not PromptFailure:
            yield kind.exit_code, " ".join(inspect.cleandoc(kind.__doc__ or "").split())
