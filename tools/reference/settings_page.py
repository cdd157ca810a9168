"""The tables of ``docs/settings.md``; the prose around them is people's."""

import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edged.reloading import LIVE
from edged.settings import Settings
from tools.reference.values import Schema, values

BEGIN: Final = "<!-- Made by python -m tools.reference from edged/settings.py, as far as END. -->\n"
END: Final = "<!-- END -->\n"
MORE: Final = {
    "node": "[topics](wire-protocol.md)",
    "profile": "[hardware profiles](hw-profiles.md)",
    "drain_s": "[stopping](promises.md#stopping-and-going-on)",
    "mqtt.tls": "[TLS](#tls)",
    "mqtt.pools": "[pools](wire-protocol.md#pools)",
    "mqtt.require_client": "[security](security.md)",
    "mqtt.reply_prefixes": "[rules](wire-protocol.md#rules)",
    "mqtt.password": "[secrets](security.md#secrets)",
    "model.store": "[models](models.md)",
    "model.hub_token": "[secrets](security.md#secrets)",
    "chat.user_template": "[why](speed.md#what-was-read-already)",
    "queue.client_active": "[who may ask how much](promises.md#who-may-ask-how-much)",
    "spool.keep_s": "[promises](promises.md)",
    "session.max_turns": "[conversations](promises.md#conversations)",
    "throttle.limit_c": "[throttling](throttling.md#the-limit)",
    "throttle.root": "[the twin](throttling-twin.md)",
    "memory.keep_alive_s": "[memory](memory-pressure.md#unloading-for-want-of-prompts)",
}


def filled_in(document: str) -> str:
    """The document with its tables as the settings are now."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"docs/settings.md has no line {BEGIN!r}"
    assert end, f"docs/settings.md has no line {END!r}"
    return f"{before}{begin}\n{tables()}\n{end}{after}"


def tables() -> str:
    """One for the settings outside of sections, then one a section."""
    sections = {name: _section(field) for name, field in Settings.model_fields.items()}
    alone = [name for name, section in sections.items() if section is None]
    parts = ["### At the top\n", _reload(alone), "", _table(Settings, "", alone)]
    for name, section in sections.items():
        if section is not None:
            parts += ["", f"### `[{name}]`\n", f"{section.__doc__} {_reload([name])}\n"]
            parts.append(_table(section, f"{name}.", list(section.model_fields)))
    return "\n".join(parts) + "\n"


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its dotted name."""
    for name, field in Settings.model_fields.items():
        section = _section(field)
        if section is None:
            yield name, field
        else:
            yield from ((f"{name}.{inner}", each) for inner, each in section.model_fields.items())


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _reload(names: list[str]) -> str:
    live = [f"`{name}`" for name in names if name in LIVE]
    if len(live) == len(names):
        return "A reload changes them."
    return f"A reload changes {', '.join(live)}." if live else "They need a restart."


def _table(model: type[BaseModel], prefix: str, names: list[str]) -> str:
    schema: dict[str, Any] = model.model_json_schema()
    lines = ["| setting | default | may be | meaning |", "| --- | --- | --- | --- |"]
    lines += [
        _row(prefix + name, model.model_fields[name], schema["properties"][name], schema)
        for name in names
    ]
    return "\n".join(lines)


def _row(name: str, field: FieldInfo, schema: Schema, whole: Schema) -> str:
    meaning = field.description or ""
    more = f" ({MORE[name]})" if name in MORE else ""
    may_be = values(schema, whole.get("$defs", {}))
    return f"| `{name}` | {_default(field)} | {may_be} | {_plain(meaning)}{more} |"


def is_unset(field: FieldInfo) -> bool:
    """Whether the field's meaning has to say what holds where nobody sets it."""
    return field.default is None or field.default_factory is not None


def _default(field: FieldInfo) -> str:
    if is_unset(field):
        return "unset"
    value = field.default
    shown = f"{value:g}" if isinstance(value, float) else json.dumps(value, default=str)
    return f"`{shown}`"


def _plain(text: str) -> str:
    """Descriptions are no Markdown; names of variables, templates and models may stand in them."""
    return text.replace("_", "\\_").replace("<", "&lt;")
