"""From a ``Reply`` to what goes over the wire."""

import json
from typing import Any

from edged.messages import Delta, Done, Failed, Reply

# Not asdict: it copies what is only to be written, and this is for every group of tokens.
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=vars)


def encode_reply(reply: Reply, correlation_text: str | None) -> bytes:
    """The JSON object of the wire protocol; fields that were not wanted are left out."""
    body: dict[str, Any] = {
        "id": reply.id,
        "seq": reply.seq,
        "restarts": reply.restarts,
        "type": reply.message.type,
    }
    if correlation_text is not None:
        body["correlation"] = correlation_text
    body |= vars(reply.message)
    if isinstance(reply.message, Done) and reply.message.text is None:
        del body["text"]
    if isinstance(reply.message, Done) and reply.message.session is None:
        del body["session"]
    return _ENCODER.encode(body).encode()


def encode_plain(reply: Reply, *, whole: bool = False) -> list[bytes]:
    """Raw text, and one empty message at the end; nothing for what is no text.

    ``whole`` is for who has had no piece of it, such as one who asks again for an answer.
    """
    match reply.message:
        case Delta(text=text):
            return [text.encode()]
        case Done(text=text):
            return [text.encode(), b""] if whole and text else [b""]
        case Failed(code=code, error=error):
            return [f"{code}: {error}".encode(), b""]
    return []


def user_properties(reply: Reply) -> list[tuple[str, str]]:
    """The facts by which a receiver can sort messages without reading them."""
    return [
        ("edged-id", reply.id),
        ("edged-seq", str(reply.seq)),
        ("edged-restarts", str(reply.restarts)),
        ("edged-type", reply.message.type),
    ]


def reply_qos(reply: Reply) -> int:
    """1 for what must arrive, 0 for what is only to be watched."""
    return 1 if reply.message.type in ("accepted", "done", "failed") else 0
