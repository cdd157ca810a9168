"""The commands as click knows them, in plain data."""

import inspect
from dataclasses import dataclass
from typing import Literal

import click

from edged.cli.main import cli

Takes = Literal["text", "file", "folder"] | tuple[str, ...]
"""What stands for a value: free text, a path, or one of some words."""


@dataclass(frozen=True)
class Option:
    """``shown`` and ``help`` as ``--help`` has them; ``takes`` is ``None`` for a flag."""

    flags: tuple[str, ...]
    shown: str
    help: str
    takes: Takes | None


@dataclass(frozen=True)
class Argument:
    """A word without a flag before it."""

    shown: str
    takes: Takes
    is_many: bool


@dataclass(frozen=True)
class Command:
    """One command, or a group of them; ``path`` are the words that lead to it."""

    path: tuple[str, ...]
    usage: str
    summary: str
    paragraphs: tuple[str, ...]
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple["Command", ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)

    @property
    def own_options(self) -> list[Option]:
        """Those that not every command has."""
        return [option for option in self.options if "--help" not in option.flags]

    def all(self) -> list["Command"]:
        """Itself, and those below it, in the order of ``--help``."""
        return [self, *(below for command in self.commands for below in command.all())]


def edged() -> Command:
    """The whole tree."""
    return _command(cli, click.Context(cli, info_name="edged", **cli.context_settings))


def _command(command: click.Command, context: click.Context) -> Command:
    text = inspect.cleandoc(command.help or "")
    parameters = command.get_params(context)
    return Command(
        path=tuple(context.command_path.split()),
        usage=" ".join([context.command_path, *command.collect_usage_pieces(context)]),
        summary=command.get_short_help_str(limit=200),
        paragraphs=tuple(" ".join(part.split()) for part in text.split("\n\n") if part),
        options=tuple(
            Option((*each.opts, *each.secondary_opts), *record, takes=_option_takes(each))
            for each in parameters
            if isinstance(each, click.Option) and (record := each.get_help_record(context))
        ),
        arguments=tuple(
            Argument(each.make_metavar(context), _takes(each), is_many=each.nargs != 1)
            for each in parameters
            if isinstance(each, click.Argument)
        ),
        commands=tuple(_below(command, context)) if isinstance(command, click.Group) else (),
    )


def _below(group: click.Group, context: click.Context) -> list[Command]:
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not command.hidden:
            found.append(_command(command, click.Context(command, context, name)))
    return found


def _option_takes(option: click.Option) -> Takes | None:
    return None if option.is_flag or option.count else _takes(option)


def _takes(parameter: click.Parameter) -> Takes:
    match parameter.type:
        case click.Choice(choices=choices):
            return tuple(str(choice) for choice in choices)
        case click.Path(file_okay=False):
            return "folder"
        case click.Path():
            return "file"
    return "text"
