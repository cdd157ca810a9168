"""Completion for zsh: a table, so that no Python is started for a key."""

from collections.abc import Iterator

from tools.reference.commands import Command, Option, Takes

SCRIPT = """\
#compdef edged
# zsh completion for edged. Made by python -m tools.reference from the commands.

{functions}
if [[ $funcstack[1] == _edged ]]; then
  _edged "$@" # loaded by its name
else
  compdef _edged edged # sourced
fi
"""
GROUP = """\
{function}() {{
  local curcontext=$curcontext state line ret=1
  typeset -A opt_args
  _arguments -C \\
    {options} \\
    '1:command:->command' \\
    '*::argument:->argument' && ret=0
  case $state in
  command)
    local -a commands=(
      {names}
    )
    _describe -t commands command commands && ret=0
    ;;
  argument)
    case $words[1] in
    {branches}
    esac
    ;;
  esac
  return ret
}}
"""
LEAF = """\
{function}() {{
  _arguments \\
    {specs}
}}
"""


def script(edged: Command) -> str:
    """What zsh loads by its name from ``$fpath``."""
    return SCRIPT.format(functions="\n".join(_function(command) for command in edged.all()))


def _function(command: Command) -> str:
    options = [spec for option in command.options for spec in _option(option)]
    if not command.commands:
        specs = [*options, *_arguments(command)]
        return LEAF.format(function=_name(command), specs=" \\\n    ".join(specs))
    return GROUP.format(
        function=_name(command),
        options=" \\\n    ".join(options),
        names="\n      ".join(
            _quoted(f"{below.path[-1]}:{_described(below.summary)}") for below in command.commands
        ),
        branches="\n    ".join(
            f"{below.path[-1]}) {_name(below)} && ret=0 ;;" for below in command.commands
        ),
    )


def _name(command: Command) -> str:
    return "_" + "_".join(command.path)


def _option(option: Option) -> Iterator[str]:
    for flag in option.flags:
        text = f"{flag}[{_described(option.help)}]{_value(option.takes)}"
        yield _quoted(text)


def _arguments(command: Command) -> Iterator[str]:
    for number, argument in enumerate(command.arguments, 1):
        place = "*" if argument.is_many else str(number)
        name = argument.shown.strip("[].").lower()
        yield _quoted(f"{place}:{name}:{_action(argument.takes)}")


def _value(takes: Takes | None) -> str:
    return "" if takes is None else f":value:{_action(takes)}"


def _action(takes: Takes) -> str:
    match takes:
        case "file":
            return "_files"
        case "folder":
            return "_files -/"
        case tuple():
            return f"({' '.join(takes)})"
    return ""


def _described(text: str) -> str:
    """Colons and brackets end a description."""
    return "".join(f"\\{each}" if each in "\\[]:" else each for each in text)


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"
