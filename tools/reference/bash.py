"""Completion for bash: a table, so that no Python is started for a key."""

from collections.abc import Iterator

from tools.reference.commands import Command, Takes

SCRIPT = """\
# bash completion for edged. Made by python -m tools.reference from the commands.

_edged() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command=edged words='' paths='' i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$command ${{COMP_WORDS[i - 1]}}" in
{with_value}) continue ;;
        esac
        case "$command ${{COMP_WORDS[i]}}" in
{commands}) command+=" ${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$command $before" in
{values}
    *) case "$command" in
{leaves}
        esac ;;
    esac
    if [[ $paths ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen "-$paths" -- "$word")
    elif [[ $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}}

complete -F _edged edged
"""
INDENT = "    "


def script(edged: Command) -> str:
    """What bash-completion loads when ``edged`` is completed first."""
    every = edged.all()
    valued = [
        (f"{command.name} {flag}", option.takes)
        for command in every
        for option in command.options
        for flag in option.flags
        if option.takes is not None
    ]
    return SCRIPT.format(
        with_value=_either([name for name, _ in valued], 2),
        commands=_either([command.name for command in every[1:]], 2),
        values="\n".join(_cases(valued)),
        leaves="\n".join(f"{INDENT * 2}{_quoted(c.name)}) {' '.join(_words(c))} ;;" for c in every),
    )


def _cases(valued: list[tuple[str, Takes]]) -> Iterator[str]:
    """One for all options that take the same."""
    for takes in dict.fromkeys(takes for _, takes in valued):
        yield f"{_either([name for name, each in valued if each == takes], 1)}) {_offer(takes)} ;;"


def _either(names: list[str], depth: int) -> str:
    return (" | \\\n" + INDENT * depth).join(["", *map(_quoted, names)]).removeprefix(" | \\\n")


def _words(command: Command) -> Iterator[str]:
    """Options where a dash was typed; else what follows the command, if that is known."""
    flags = [flag for option in command.options for flag in option.flags]
    names = [below.path[-1] for below in command.commands]
    yield f"if [[ $word == -* ]]; then words='{' '.join(flags)}'"
    if names:
        yield f"; else words='{' '.join(names)}'"
    elif command.arguments and command.arguments[-1].takes in ("file", "folder"):
        yield f"; else {_offer(command.arguments[-1].takes)}"
    yield "; fi"


def _offer(takes: Takes | None) -> str:
    match takes:
        case "file":
            return "paths=f"
        case "folder":
            return "paths=d"
        case tuple():
            return f"words='{' '.join(takes)}'"
    return ":"


def _quoted(text: str) -> str:
    return f"'{text}'"
