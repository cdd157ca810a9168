"""Completion for fish: a table, so that no Python is started for a key."""

from collections.abc import Iterator

from tools.reference.commands import Command, Takes

BEGINNING = """\
# fish completion for edged. Made by python -m tools.reference from the commands.

# Whether the commands that were typed begin with these; --only: are these and no more.
function __edged_at
    argparse only -- $argv
    set -l words (commandline -opc)[2..]
    set -l typed
    while set -q words[1]
        switch $words[1]
            case {with_value}
                set -e words[1] # its value follows
            case '-*'
            case '*'
                set -a typed $words[1]
        end
        set -e words[1]
    end
    if set -q _flag_only
        test "$typed" = "$argv"
    else
        test -z "$argv"; or test "$typed[1..$(count $argv)]" = "$argv"
    end
end

complete -c edged -f
"""


def script(edged: Command) -> str:
    """What fish loads when ``edged`` is completed first."""
    every = edged.all()
    with_value = {
        flag
        for command in every
        for option in command.options
        for flag in option.flags
        if option.takes is not None
    }
    lines = [line for command in every for line in _lines(command)]
    return BEGINNING.format(with_value=" ".join(sorted(with_value))) + "\n".join(lines) + "\n"


def _lines(command: Command) -> Iterator[str]:
    at = " ".join(command.path[1:])
    yield f"# {command.name}"
    for below in command.commands:
        only = _quoted(f"__edged_at --only {at}".rstrip())
        yield f"complete -c edged -n {only} -a {below.path[-1]} -d {_quoted(below.summary)}"
    # The options of a group stand before its commands.
    condition = _quoted(f"__edged_at {'--only ' if command.commands else ''}{at}".rstrip())
    for option in command.options:
        flags = " ".join(
            f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
        )
        yield (
            f"complete -c edged -n {condition} {flags}{_value(option.takes)} "
            f"-d {_quoted(option.help)}"
        )
    if any(argument.takes in ("file", "folder") for argument in command.arguments):
        yield f"complete -c edged -n {condition} -F"


def _value(takes: Takes | None) -> str:
    match takes:
        case None:
            return ""
        case "file":
            return " -rF"
        case "folder":
            return " -x -a '(__fish_complete_directories)'"
        case tuple():
            return f" -x -a '{' '.join(takes)}'"
    return " -x"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
