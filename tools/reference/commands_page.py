"""``docs/reference/commands.md``."""

from tools.reference.commands import Command
from tools.reference.exit_codes import exit_codes

BEGINNING = """\
# Commands

Made by `python -m tools.reference`: what `edged --help` and its like say, in one page; `man edged`
is the same. `--config` and other options of `edged` itself stand before the command:
`edged --config FILE status`. Every command knows `-h` and `--help`.
"""


def page(edged: Command) -> str:
    """Every command, groups included."""
    return "\n".join([BEGINNING, *(_section(command) for command in edged.all()), _exit_codes()])


def _exit_codes() -> str:
    lines = ["## Exit codes", "", "Where a command's own text says nothing else:", ""]
    lines += ["| code | meaning |", "| --- | --- |"]
    lines += [f"| {code} | {_cell(text)} |" for code, text in exit_codes()]
    return "\n".join([*lines, ""])


def _section(command: Command) -> str:
    lines = [f"## {command.name}", "", *_separated(command.paragraphs)]
    lines += ["```text", command.usage, "```", ""]
    if command.own_options:
        lines += ["| option | meaning |", "| --- | --- |"]
        lines += [f"| `{_cell(each.shown)}` | {_cell(each.help)} |" for each in command.own_options]
    if command.commands:
        lines += ["", "| command | |", "| --- | --- |"]
        lines += [
            f"| [`{below.name}`](#{'-'.join(below.path)}) | {_cell(below.summary)} |"
            for below in command.commands
        ]
    return "\n".join([*lines, ""])


def _separated(paragraphs: tuple[str, ...]) -> list[str]:
    return [line for paragraph in paragraphs for line in (_plain(paragraph), "")]


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Help texts are no Markdown."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
