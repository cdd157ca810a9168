"""Prompts and terminal replies as text that a later version can still read."""

import json
from dataclasses import asdict, fields
from typing import Any, TypeVar

from edged.messages import (
    ChatMessage,
    Done,
    Failed,
    Prompt,
    Reply,
    Sampling,
    SessionUse,
    Timings,
    Usage,
)

T = TypeVar("T")

_TERMINALS: dict[str, type[Done | Failed]] = {kind.type: kind for kind in (Done, Failed)}


def prompt_text(prompt: Prompt) -> str:
    """All of a prompt but its digest, which is kept beside it."""
    body = asdict(prompt)
    del body["digest"]
    return _text(body)


def read_prompt(text: str, digest: bytes) -> Prompt:
    """Raises ``ValueError``, ``KeyError`` or ``TypeError`` for what is none."""
    body = json.loads(text)
    messages = tuple(_made(ChatMessage, message) for message in body.pop("messages"))
    sampling = body.pop("sampling")
    sampling["stop"] = tuple(sampling["stop"])
    body |= {"messages": messages, "sampling": _made(Sampling, sampling), "digest": digest}
    return _made(Prompt, body)


def terminal_text(reply: Reply) -> str:
    """A terminal reply, from which ``read_terminal`` makes an equal one."""
    body = asdict(reply)
    return _text({**body, "type": reply.message.type})


def read_terminal(text: str) -> Reply:
    """Raises ``ValueError``, ``KeyError`` or ``TypeError`` for what is none."""
    body = json.loads(text)
    message = body.pop("message")
    for name, kind in (("usage", Usage), ("timings", Timings), ("session", SessionUse)):
        if message.get(name) is not None:
            message[name] = _made(kind, message[name])
    body["message"] = _made(_TERMINALS[body.pop("type")], message)
    return _made(Reply, body)


def _text(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _made(kind: type[T], body: dict[str, Any]) -> T:
    """Of the fields that this version knows: a later one may have written more."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in body.items() if name in known})
