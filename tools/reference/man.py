"""``edged.1``: one page for all commands, in the macros that every ``man`` knows."""

import re
import textwrap

import edged
from edged.settings import DEFAULT_CONFIG_PATH, secret_paths
from tools.reference.commands import Command
from tools.reference.exit_codes import exit_codes

FILES = {
    str(
        DEFAULT_CONFIG_PATH
    ): "Settings. Where it is missing, what is said below ENVIRONMENT counts, and the defaults.",
    "/etc/edged/hw_profiles/": "Hardware profiles of your own.",
    "$STATE_DIRECTORY, ~/.local/state/edged/": "What was promised, and which model was chosen.",
    "$CACHE_DIRECTORY/models/, ~/.cache/edged/models/": "Models that were pulled.",
    "PREFIX/share/edged/systemd/": "The service's unit and drop-ins; PREFIX is the virtual "
    "environment.",
}
ENVIRONMENT = {
    "EDGED_CONFIG": f"Settings file instead of {DEFAULT_CONFIG_PATH}.",
    "EDGED_SECTION__NAME": "The setting section.name, as EDGED_MQTT__HOST is mqtt.host; lists are "
    f"JSON. Secrets ({', '.join(secret_paths())}) are refused here.",
    "EDGED_DEBUG": "1 shows a traceback instead of one line.",
    "CREDENTIALS_DIRECTORY": "Files edged.section.name in it are that setting; systemd sets it.",
}
WIDTH = 68
"""Of a line before it is escaped; mandoc wants at most 80 characters after that."""
SEE_ALSO = ("mosquitto(8)", "systemctl(1)")


def page(command: Command) -> str:
    """The page of the whole tree."""
    lines = [
        '.\\" Made by python -m tools.reference from the commands.',
        f'.TH EDGED 1 "" "edged {edged.__version__}" "edged"',
        ".SH NAME",
        f"edged \\- {_escaped(_lower(command.summary).rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B edged",
        _escaped(command.usage.removeprefix("edged ")),
        ".SH DESCRIPTION",
        *_paragraphs(command.paragraphs),
        *_options(command),
        *_terms({"-h, --help": "Say what a command does and takes; each knows it."}),
        ".SH COMMANDS",
    ]
    for below in command.all()[1:]:
        lines += [f".SS {_escaped(below.name)}", f".B {_escaped(below.usage)}", ".PP"]
        lines += [*_paragraphs(below.paragraphs), *_options(below)]
    lines += [".SH FILES", *_terms(FILES), ".SH ENVIRONMENT", *_terms(ENVIRONMENT)]
    lines += [".SH EXIT STATUS", *_terms({str(code): text for code, text in exit_codes()})]
    lines += [".SH SEE ALSO", ", ".join(SEE_ALSO)]
    return "\n".join(lines) + "\n"


def _paragraphs(texts: tuple[str, ...]) -> list[str]:
    lines = [line for text in texts for line in (".PP", *_text(text))]
    return lines[1:]  # a heading begins a paragraph, too


def _options(command: Command) -> list[str]:
    return _terms({option.shown: option.help for option in command.own_options})


def _terms(pairs: dict[str, str]) -> list[str]:
    return [
        line
        for term, text in pairs.items()
        for line in (".TP", f".B {_escaped(term)}", *_text(text or "See above."))
    ]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _text(text: str) -> list[str]:
    """As lines, each sentence beginning one: that is how roff knows where it ends."""
    sentences = re.split(r"(?<=[.?!]) (?=[A-Z])", text)
    return [_escaped(line) for each in sentences for line in textwrap.wrap(each, WIDTH)]


def _escaped(line: str) -> str:
    """Nothing of it is a request or an escape, and what is not ASCII is named."""
    escaped = line.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    if escaped.startswith((".", "'")):
        escaped = f"\\&{escaped}"
    return "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in escaped)
