"""From what came over the wire to a checked ``Prompt``, or to the failure that answers it.

Nothing here trusts its input: whatever the bytes are, the outcome is a ``Request``.
"""

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from edged.engine.json_schema import grammar_of
from edged.errors import InvalidRequest, PromptFailure, ReplyTopicForbidden
from edged.messages import ChatMessage, Prompt, Sampling
from edged.settings import ChatSettings, Settings
from edged.transports.address import Address
from edged.transports.body import (
    MAX_CORRELATION,
    MAX_ID_CHARACTERS,
    SEED_BITS,
    Body,
    json_body,
    parse_json_object,
    plain_body,
    short,
)
from edged.transports.topics import Topics, is_clean, is_level, may_reply

PARSED_FACTOR = 4
"""Up to so many times ``mqtt.max_payload_bytes``, a payload's own id and reply topic are found.

Also our Maximum Packet Size in MQTT 5: a broker drops silently what exceeds that.
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Incoming:
    """A publish as it came; all from ``response_topic`` on is of MQTT 5 properties."""

    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    are_properties_readable: bool = True


@dataclass(frozen=True)
class Request:
    """What became of a publish on a prompt topic."""

    address: Address
    outcome: Prompt | PromptFailure


def decode_prompt(incoming: Incoming, client: str, topics: Topics, settings: Settings) -> Request:
    """Read a publish on a prompt topic. Never raises: a failure is an outcome."""
    failure: PromptFailure | None = None
    fields: dict[str, Any] | None = None
    plain = incoming.payload.lstrip()[:1] != b"{"
    # What is far too long is not even looked into, since parsing takes many times its size; with
    # MQTT 5 such a payload does not arrive at all.
    limit = settings.mqtt.max_payload_bytes
    if not plain and len(incoming.payload) <= PARSED_FACTOR * limit:
        try:
            fields = parse_json_object(incoming.payload)
        except InvalidRequest as error:
            failure = error
    address, misdirected = _address(incoming, fields or {}, client, topics, settings, plain=plain)
    try:
        if failure or misdirected:
            raise failure or misdirected  # type: ignore[misc]
        if len(incoming.payload) > limit:
            raise InvalidRequest(
                f"the payload is {len(incoming.payload)} bytes, and {limit} are allowed "
                "(mqtt.max_payload_bytes)",
                details={"bytes": len(incoming.payload), "limit": limit},
            )
        body = plain_body(incoming.payload) if fields is None else json_body(fields)
        return Request(address, _prompt(body, incoming, address.id, client, settings))
    except PromptFailure as error:
        return Request(address, error)


def _address(
    incoming: Incoming,
    fields: dict[str, Any],
    client: str,
    topics: Topics,
    settings: Settings,
    *,
    plain: bool,
) -> tuple[Address, PromptFailure | None]:
    """Where to answer, as far as it can be known, and what is wrong with where it was asked."""
    failure: PromptFailure | None = None
    given_id, correlation_text = fields.get("id"), fields.get("correlation")
    if given_id is None and incoming.correlation:
        given_id = _id_of_correlation(incoming.correlation)
    if given_id is not None and not _is_id(given_id):
        failure = InvalidRequest(
            f"id: must be 1 to {MAX_ID_CHARACTERS} characters that MQTT allows in a string",
            details={"field": "id"},
        )
        given_id = None
    prompt_id: str = given_id or uuid.uuid4().hex
    correlation = incoming.correlation
    if correlation is not None and len(correlation) > MAX_CORRELATION:
        failure = InvalidRequest(
            f"the Correlation Data is {len(correlation)} bytes, and {MAX_CORRELATION} are allowed",
            details={"bytes": len(correlation), "limit": MAX_CORRELATION},
        )
        correlation = None
    topic = topics.completion(client, prompt_id) if is_level(prompt_id) else None
    asked = given_id is not None
    wanted = incoming.response_topic or fields.get("reply_to")
    if isinstance(wanted, str) and may_reply(
        wanted, prefixes=settings.mqtt.reply_prefixes, root=topics.root, client=client
    ):
        topic, asked = wanted, True
    elif isinstance(wanted, str):
        failure = failure or ReplyTopicForbidden(
            f"replies may not go to {short(wanted)!r}; allowed for this client is what lies below "
            f"{', '.join(settings.mqtt.reply_prefixes)}",
            details={"field": "reply_to"},
        )
    elif wanted is not None:
        failure = failure or InvalidRequest(
            "reply_to: must be a string", details={"field": "reply_to"}
        )
    elif topic is None:
        failure = failure or InvalidRequest(
            "id: cannot be a level of the reply topic; leave out / + and #, or name a reply topic",
            details={"field": "id"},
        )
    if not isinstance(correlation_text, str) or len(correlation_text) > MAX_CORRELATION:
        correlation_text = None
    return (
        Address(
            id=prompt_id,
            topic=topic,
            asked=asked,
            correlation=correlation,
            correlation_text=correlation_text,
            plain=plain,
        ),
        failure,
    )


def _id_of_correlation(correlation: bytes) -> str:
    try:
        text = correlation.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if _is_id(text) and is_level(text):
        return text
    name = correlation.hex()
    return name if _is_id(name) else hashlib.sha256(correlation).hexdigest()


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and is_clean(value)


def _prompt(
    body: Body, incoming: Incoming, prompt_id: str, client: str, settings: Settings
) -> Prompt:
    deadline_s = body.deadline_s
    if deadline_s is None and incoming.expiry_s is not None:
        deadline_s = float(incoming.expiry_s)
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    defaults = settings.sampling
    if body.session_reset and body.session is None:
        raise InvalidRequest(
            "session_reset: needs a session to begin anew", details={"field": "session_reset"}
        )
    _check_bound("max_tokens", body.max_tokens, defaults.max_tokens_limit)
    _check_bound("temperature", body.temperature, defaults.temperature_limit)
    return Prompt(
        id=prompt_id,
        client=client,
        messages=_messages(body, settings.chat),
        sampling=Sampling(
            max_tokens=_or(body.max_tokens, defaults.max_tokens),
            temperature=_or(body.temperature, defaults.temperature),
            top_k=_or(body.top_k, defaults.top_k),
            top_p=_or(body.top_p, defaults.top_p),
            min_p=_or(body.min_p, defaults.min_p),
            repeat_penalty=_or(body.repeat_penalty, defaults.repeat_penalty),
            seed=_or(body.seed, secrets.randbits(SEED_BITS)),
            stop=stop,
        ),
        # With the reply topic: whoever asks the same from elsewhere does not listen there.
        digest=hashlib.sha256(
            (incoming.response_topic or "").encode() + b"\0" + incoming.payload
        ).digest(),
        priority=body.priority,
        deadline_s=deadline_s,
        stream=body.stream,
        chunk=body.chunk,
        text_in_done=body.text_in_done,
        model=body.model,
        grammar=_grammar(body),
        session=body.session,
        session_reset=body.session_reset,
    )


def _messages(body: Body, chat: ChatSettings) -> tuple[ChatMessage, ...]:
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest(
            "prompt: exactly one of prompt and messages is needed", details={"field": "prompt"}
        )
    if body.prompt is not None:
        if not body.prompt.strip():
            raise InvalidRequest("prompt: is empty", details={"field": "prompt"})
        said = [ChatMessage("user", body.prompt)]
    else:
        said = [ChatMessage(message.role, message.content) for message in body.messages or ()]
        if said[-1].role != "user":
            raise InvalidRequest(
                "messages: the last one must be the user's", details={"field": "messages"}
            )
    if chat.user_template is not None:
        said[-1] = ChatMessage("user", _filled_in(chat.user_template, said[-1].content))
    if chat.system_prompt is not None and all(message.role != "system" for message in said):
        said.insert(0, ChatMessage("system", chat.system_prompt))
    return tuple(said)


def _filled_in(template: str, prompt: str) -> str:
    """The operator's template with the day, the time and the prompt, which is not looked into."""
    now = datetime.now().astimezone()
    before, after = (
        part.replace("{date}", f"{now:%A, %Y-%m-%d}").replace("{time}", f"{now:%H:%M}")
        for part in template.split("{prompt}")
    )
    return f"{before}{prompt}{after}"


def _grammar(body: Body) -> str | None:
    """What the answer must keep to. Raises ``InvalidRequest``."""
    if body.response_format is None:
        return None
    if body.stop:
        raise InvalidRequest(
            "stop: cannot be had with response_format, since an answer that is cut would not keep "
            "to it; leave one of them out",
            details={"field": "stop"},
        )
    return grammar_of(body.response_format)


def _check_bound(name: str, value: float | None, limit: float) -> None:
    if value is not None and value > limit:
        raise InvalidRequest(
            f"{name}: {short(str(value))} is above the operator's limit of {limit:g}",
            details={"field": name, "value": value, "limit": limit},
        )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
