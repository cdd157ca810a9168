"""``docs/reference/messages.md``: topics and messages, field by field."""

import dataclasses
import inspect
import json
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from edged.errors import PromptFailure
from edged.messages import Reply, ReplyMessage
from edged.settings import MqttSettings
from edged.telemetry.presence import Activity, Condition, card, state
from edged.transports.body import Body
from edged.transports.encode import encode_reply, reply_qos
from edged.transports.topics import Topics
from tools.reference.values import values

BEGINNING: Final = """\
# Topics and messages

Made by `python -m tools.reference` from the code: names, types and limits of all that goes over the
bus. What it means, and how it behaves, stands in the [wire protocol](../wire-protocol.md).
"""
JSON_NAMES: Final = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "null",
}


def page() -> str:
    parts = [BEGINNING, _topics(), _prompt(), _replies(), _codes(), _retained()]
    return "\n".join(parts)


def _topics() -> str:
    root = MqttSettings().topic_root
    topics = Topics(root, "<node>", pools=("<pool>",))
    rows = {
        topics.prompt(): "prompts of the client `anonymous`",
        topics.prompt("<client>"): "prompts",
        topics.pool_prompt("<pool>"): "prompts of `anonymous` for whichever node of the pool",
        topics.pool_prompt("<pool>", "<client>"): "prompts for whichever node of the pool",
        topics.cancel(): "cancels of `anonymous`",
        topics.cancel("<client>"): "cancels",
        topics.completion("<client>", "<id>"): "replies, unless the prompt names another topic",
        topics.status: "`online` or `offline`, retained; the latter is the will, too",
        topics.card: "[the card](#card), retained",
        topics.state: "[the state](#state), retained",
        topics.rejected: "what could not be answered where it was asked",
    }
    lines = [f"| `{topic}` | {meaning} |" for topic, meaning in rows.items()]
    listened = [
        *topics.subscriptions(require_client=False),
        *topics.shares(require_client=False),
    ]
    return "\n".join(
        [
            "## Topics",
            "",
            f"Below `{root}`, unless `mqtt.topic_root` says otherwise.",
            "",
            *_head("topic", "what goes there"),
            *lines,
            "",
            "A node subscribes to:",
            "",
            "```text",
            *listened,
            "```",
            "",
            "With `mqtt.require_client`:",
            "",
            "```text",
            *topics.subscriptions(require_client=True),
            *topics.shares(require_client=True),
            "```",
            "",
        ]
    )


def _prompt() -> str:
    schema = Body.model_json_schema()
    rows = []
    for name, field in Body.model_fields.items():
        may_be = values(schema["properties"][name], schema.get("$defs", {}))
        default = "" if field.default is None else f"`{_json(field.default)}`"
        rows.append(f"| `{name}` | {may_be} | {default} |")
    return "\n".join(["## Prompt", "", *_head("field", "may be", "default"), *rows, ""])


def _replies() -> str:
    common = {"id": str, "seq": int, "restarts": int}
    lines = [
        "## Replies",
        "",
        "Each has `type`, these, and `correlation` (text) where the prompt had one:",
        "",
        *_head("field", "is"),
        *(f"| `{name}` | {_kind(kind)} |" for name, kind in common.items()),
    ]
    for kind in get_args(ReplyMessage):
        qos = reply_qos(Reply("", 0, 0, object.__new__(kind)))
        lines += ["", f"### {kind.type}", "", f"{_doc(kind)} QoS {qos}.", "", *_head("field", "is")]
        lines += [f"| `{name}` | {is_} |" for name, is_ in _fields(kind, _sent(kind))]
    return "\n".join([*lines, ""])


def _sent(kind: type) -> set[str]:
    """Which fields a message has even where there is nothing to say."""
    message = object.__new__(kind)
    vars(message).update(dict.fromkeys(kind.__dataclass_fields__))
    return set(json.loads(encode_reply(Reply("", 0, 0, message), None)))


def _fields(kind: type, sent: set[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        kinds = _alternatives(hints[field.name])
        is_ = " or ".join(
            "object" if dataclasses.is_dataclass(each) else _kind(each) for each in kinds
        )
        if not prefix and field.name not in sent:
            is_ = is_.removesuffix(" or null") + ", or left out"
        yield prefix + field.name, is_
        for each in kinds:
            if dataclasses.is_dataclass(each):
                yield from _fields(each, sent, f"{prefix}{field.name}.")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _kind(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(hint))
    if get_origin(hint) is not None:
        assert issubclass(get_origin(hint), Mapping)
        return "object"
    return JSON_NAMES[hint]


def _codes() -> str:
    rows = [
        f"| [`{kind.code}`](../runbook.md#{kind.code}) | {kind.status} "
        f"| {'yes' if kind.retryable else 'no'} | {_doc(kind)} |"
        for kind in PromptFailure.__subclasses__()
    ]
    return "\n".join(
        [
            "## Codes",
            "",
            "Of `failed`, with what is said where a failure does not say otherwise:",
            "",
            *_head("code", "status", "retryable", ""),
            *rows,
            "",
        ]
    )


def _retained() -> str:
    nothing = Activity(Condition(), "loading", None, 0.0, None, 0, 0, 0.0, None, None, None, ())
    is_ = card("", None, None, None, None)
    does = state(nothing)
    return "\n".join(
        [
            "## Card",
            "",
            f"{_names(is_)}.",
            "",
            "## State",
            "",
            f"{_names(does)}.",
            "",
            f"In `memory`: {_names(does['memory'])}.",
            "",
        ]
    )


def _names(body: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}`" for name in body)


def _head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |".replace("|  |", "| |"), f"|{' --- |' * len(columns)}"]


def _json(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _doc(kind: type) -> str:
    """Its docstring as Markdown, in one line."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split()).replace("``", "`")
