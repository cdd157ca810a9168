"""``edged doctor``: what usually goes wrong, checked, with the remedy."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import click

from edged.cli.checks import SEVERITY, Node, examine
from edged.hardware.health import Finding, Outcome

_SIGNS: Final[dict[Outcome, tuple[str, str]]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failure": ("✗", "red"),
    "not applicable": ("–", "bright_black"),
}
_PLAIN: Final = str.maketrans("✓✗–", "+x-")
_LAST_LINES: Final = ("All is well.", "edged works, with {}.", "edged will not work: {}.")
_NAME_COLUMNS: Final = 15
_NARROWEST: Final = 40

Results = Sequence[tuple[str, Finding]]


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
@click.pass_context
def command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Check what usually goes wrong, and say what to do about it.

    Exit code 0: all is well; 1: there are warnings; 2: edged will not work.
    """
    results = list(examine(Node(config)))
    if as_json:
        click.echo(json.dumps(_answer(results), indent=2))
    else:
        click.echo(_printable("\n".join(_report(results, _columns())), sys.stdout.encoding))
    context.exit(_exit_code(results))


def _exit_code(results: Results) -> int:
    return max((SEVERITY[finding.outcome] for _, finding in results), default=0)


def _answer(results: Results) -> dict[str, object]:
    return {
        "outcome": ("ok", "warning", "failure")[_exit_code(results)],
        "checks": [{"name": name, **vars(finding)} for name, finding in results],
    }


def _printable(text: str, encoding: str) -> str:
    """What ``encoding`` lacks becomes something like it, not an error."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def _columns() -> int | None:
    """The terminal's width; ``None`` where a program reads, which wants whole lines."""
    return max(shutil.get_terminal_size().columns, _NARROWEST) if sys.stdout.isatty() else None


def _report(results: Results, columns: int | None) -> Iterable[str]:
    before = None
    for name, finding in results:
        sign, colour = _SIGNS[finding.outcome]
        head = f"{sign} {'' if name == before else name}".ljust(_NAME_COLUMNS)
        text = _indented(finding.found, _NAME_COLUMNS + 1, columns)
        yield click.style(head, fg=colour) + text[len(head) :]
        before = name
    remedies = [(name, finding.remedy) for name, finding in results if finding.remedy]
    if remedies:
        yield ""
        yield "What to do:"
    for name, remedy in remedies:
        head = f"  {name}".ljust(_NAME_COLUMNS)
        yield head + _indented(remedy, _NAME_COLUMNS + 1, columns)[len(head) :]
    yield ""
    yield _last_line(results)


def _indented(text: str, indent: int, columns: int | None) -> str:
    """The text in lines of ``columns``, words such as paths and options kept whole."""
    text = " ".join(text.split())
    if columns is None:
        return " " * indent + text
    return textwrap.fill(
        text,
        columns,
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _last_line(results: Results) -> str:
    counts = {
        kind: sum(finding.outcome == kind for _, finding in results)
        for kind in ("failure", "warning")
    }
    words = [f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.items() if n]
    return _LAST_LINES[_exit_code(results)].format(" and ".join(words))
