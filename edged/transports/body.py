"""What a prompt's payload may say: its JSON form, checked field by field."""

import difflib
import json
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edged.errors import InvalidRequest
from edged.settings import describe_validation

MAX_ID_CHARACTERS = 128
MAX_CORRELATION = 1024
MAX_DIGITS = 1000
MAX_STOPS = 8
MAX_STOP_CHARACTERS = 256
SEED_BITS = 53
SEED_LIMIT = 2**SEED_BITS
"""Every JSON reader holds integers below this exactly."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


_Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class Body(BaseModel):
    """The JSON form of a prompt. The names are the OpenAI chat API's where it has one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    id: str | None = Field(None, min_length=1, max_length=MAX_ID_CHARACTERS)
    prompt: str | None = None
    # Each error takes a kilobyte, and a payload has room for a hundred thousand: one is enough.
    messages: list[_Message] | None = Field(None, min_length=1, fail_fast=True)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, lt=1)
    repeat_penalty: float | None = Field(None, ge=0.5, le=2)
    seed: int | None = Field(None, ge=0, lt=SEED_LIMIT)
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOPS)] | None = None
    session: str | None = Field(None, min_length=1, max_length=MAX_ID_CHARACTERS)
    session_reset: bool = False
    response_format: dict[str, Any] | None = None
    priority: int = Field(5, ge=0, le=9)
    deadline_s: float | None = Field(None, gt=0, le=10_000_000)
    stream: bool = True
    chunk: Literal["token", "sentence"] = "token"
    text_in_done: bool = True
    model: str | None = Field(None, max_length=128)
    reply_to: str | None = None
    correlation: str | None = Field(None, max_length=MAX_CORRELATION)


_FIELDS = Body.model_fields


def parse_json_object(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload. Raises ``InvalidRequest`` for everything else."""
    try:
        value = _DECODER.decode(payload.decode("utf-8"))
        if b"\\u" in payload:
            # JSON can spell half a code point (\\ud800), which nothing after us could encode.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the payload is not UTF-8 (byte {error.start})") from None
    except UnicodeEncodeError:
        raise InvalidRequest("the payload has half a code point (a lone surrogate)") from None
    except RecursionError:
        raise InvalidRequest("the payload is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"the payload is not JSON: {short(str(error))}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the payload is JSON, but no object")
    return value


def _integer(digits: str) -> int:
    # Reading a number takes the square of its length; not every Python has a limit of its own.
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=_integer)


def plain_body(payload: bytes) -> Body:
    """The body that a plain-text payload stands for. Raises ``InvalidRequest``."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the payload is not UTF-8 (byte {error.start})") from None
    return Body(prompt=text)


def json_body(fields: dict[str, Any]) -> Body:
    """The body of a JSON payload. Raises ``InvalidRequest`` that names the field."""
    for name in fields:
        if name not in _FIELDS:
            raise InvalidRequest(_unknown_field(name), details={"field": short(name)})
    _check_keys_of_messages(fields.get("messages"))
    try:
        return Body.model_validate(fields)
    except ValidationError as error:
        field = error.errors(include_input=False)[0]["loc"][0]
        raise InvalidRequest(
            short(describe_validation(error), 200), details={"field": str(field)}
        ) from None


def _check_keys_of_messages(messages: object) -> None:
    """Refuse the first unknown key, since pydantic would collect them all."""
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        for key in message if isinstance(message, dict) else ():
            if key not in _Message.model_fields:
                raise InvalidRequest(
                    f"messages.{number}.{short(key)}: is not known", details={"field": "messages"}
                )


def _unknown_field(name: str) -> str:
    near = difflib.get_close_matches(name[:64], _FIELDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{short(name)}: no field of a prompt{hint}"


def short(text: str, limit: int = 80) -> str:
    """Text from outside, fit for an error message and for one line of a log."""
    text = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text[: limit + 1]
    )
    return text if len(text) <= limit else f"{text[:limit]}…"
