"""Where mutation begins: publishes of every kind, and the words of the protocol."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.fuzz.case import Case
from benchmarks.schemas.generate import Generator
from benchmarks.schemas.hostile import SCHEMAS

SCHEMAS_DRAWN = 20
LONGEST_SEED = 20_000

PROMPTS: Final[Sequence[dict[str, Any]]] = (
    {"prompt": "x"},
    {"id": "a", "prompt": "x", "reply_to": "edged/v1/n/completion/me/a", "correlation": "c"},
    {"messages": [{"role": "user", "content": "x"}]},
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "y"},
            {"role": "user", "content": "z"},
        ],
        "session": "s",
        "session_reset": True,
    },
    {
        "prompt": "x",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 1,
        "top_p": 0.5,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "seed": 7,
        "stop": ["\n", "END"],
        "priority": 9,
        "deadline_s": 10.5,
        "stream": False,
        "chunk": "sentence",
        "text_in_done": False,
        "model": "m",
    },
    {"prompt": "x", "stop": "\n"},
    {"prompt": "x", "response_format": {"type": "json_object"}},
)
SCHEMA: Final[dict[str, Any]] = {
    "$defs": {"b": {"enum": ["on", "off", 1, None]}},
    "type": "object",
    "properties": {
        "a": {"type": "string", "minLength": 1, "maxLength": 9},
        "b": {"$ref": "#/$defs/b"},
        "c": {"type": ["array", "null"], "items": {"$ref": "#"}, "minItems": 0, "maxItems": 3},
        "d": {"anyOf": [{"const": True}, {"type": "number"}]},
    },
    "required": ["a", "b"],
    "additionalProperties": {"type": "integer"},
}
AMBIGUOUS: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "object", "properties": {"a": {"$ref": "#"}, name: {"type": "null"}}}
        for name in ("b", "c")
    ]
}
TOPICS: Final[dict[str, Sequence[str]]] = {
    "plain": (
        *("edged/v1/n/prompt", "edged/v1/n/prompt/me", "edged/v1/pool/den/prompt"),
        *("edged/v1/pool/den/prompt/me", "edged/v1/n/prompt/prompt", "edged/v1/n/prompt/a b"),
        *("edged/v1/n/prompt/a/b", "edged/v1/pool/other/prompt", "edged/v1/n/cancel/me"),
    ),
    "talkative": ("edged/v1/n/prompt", "edged/v1/n/prompt/me", "edged/v1/n/cancel"),
    "strict": ("haus/küche/n/prompt/me", "haus/küche/n/prompt", "haus/küche/n/cancel/me"),
}
REPLY_TOPICS: Final = (
    *("edged/v1/n/completion/me/a", "edged/v1/x/completion/anonymous/a/b", "home/me/a"),
    *("haus/küche/n/completion/me/a", "a/shared/b", "$SYS/shared/b", "edged/v1/n/status"),
    *("edged/v1/n/completion/other/a", "edged/v1/+/completion/me/a", "edged/v1/n/completion/me/#"),
    *("edged/v1/n/completion/me/", "edged/v1//completion/me/a", "$share/edged-den/a", ""),
    *("edged/v1/pool/completion/me/a", "edged/v1/n/prompt/me", "edged/v1/n/completion/me/../b"),
    "edged/v1/n/completion/me/" + "x" * 480,
    "edged/v1/n/completion/me" + "/x" * 40,
)
CANCELS: Final = (b'{"id": "a"}', b'{"id": "ab"}', b'{"id": 1}', b'{"id": "a", "x": 1}', b"a")
KEYS: Final = (
    *("id", "prompt", "messages", "role", "content", "session", "session_reset", "max_tokens"),
    *("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "stop", "priority"),
    *("response_format", "type", "schema", "deadline_s", "stream", "chunk", "text_in_done"),
    *("model", "reply_to", "correlation", "properties", "required", "additionalProperties"),
    *("items", "minItems", "maxItems", "minLength", "maxLength", "enum", "const", "anyOf"),
    *("$ref", "$defs", "definitions", "$id", "$schema", "title", "default", "pattern", "oneOf"),
)
TEXTS: Final = (
    *("", " ", "x", "me", "user", "assistant", "system", "token", "sentence", "json_object"),
    *("json_schema", "object", "array", "string", "integer", "number", "boolean", "null"),
    *("#", "#/$defs/b", "#/properties/a", "#/$defs/%62", "#/~1~0", "#/0", "{prompt}", "{date}"),
    *("a/b", "a+b", "..", "\n", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff"),
    *("\ufffe", "\ufdd0", "\ud800", "\udfff", "\U0010ffff", "🌡", "é", "e\u0301", "\\ud800", '"'),
    *REPLY_TOPICS,
)
NUMBERS: Final = (
    *(0, 1, -1, 2, 9, 10, 64, 500, 1000, 2000, 2001, 4096, 2**31, 2**53 - 1, 2**53, 2**63, 2**64),
    *(10**308, 10**400, 10**999, -(10**400), 0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, 1.5, 2.0, 1e22),
)
CONSTANTS: Final = (None, True, False, [], {}, [[]], [{}], {"": 0}, float("inf"), float("nan"))
BYTES: Final = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\udc00", b"NaN"),
    *(b"1e999", b"-0", b"1e-9", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00"),
    *(b" ", b"\n", b"\r", b"\t", b"\xe2\x80\xa8", b'"prompt":"x"', b'"id":1', b"9" * 100),
)


def seeds() -> list[Case]:
    """Every kind of prompt at every kind of topic of every node, and schemas."""
    payloads = [json.dumps(body).encode() for body in PROMPTS] + _schemas()
    payloads += [b"", b" \n", b"plain", "schöne Grüße".encode(), b"\xff", b"{"]
    cases = []
    for node, topics in TOPICS.items():
        cases += [Case(node, topic, payloads[0]) for topic in topics]
        cases += [Case(node, topics[1 if node == "plain" else 0], payload) for payload in payloads]
        cases += [
            Case(node, topics[0], b"x", response_topic=topic, correlation=b"c", expiry_s=5)
            for topic in REPLY_TOPICS
        ]
        cases += [
            Case(node, topics[0], b'{"prompt": "x"}', correlation=correlation)
            for correlation in (b"", b"id", b"a/b", b"\xff\x00", b"x" * 1024, b"x" * 1025)
        ]
        cases += [Case(node, topics[-1], payload) for payload in CANCELS]
        cases.append(Case(node, topics[1], payloads[0], retain=True))
        cases += [Case(node, topics[1], payloads[0], expiry_s=each) for each in (0, 2**32 - 1)]
    return cases


def _schemas() -> list[bytes]:
    """Prompts with schemas, but for the largest."""
    generator = Generator(1)
    drawn = [generator.schema() for _ in range(SCHEMAS_DRAWN)]
    payloads = []
    for schema in (SCHEMA, AMBIGUOUS, *drawn, *SCHEMAS.values()):
        response_format = {"type": "json_schema", "schema": schema}
        with contextlib.suppress(RecursionError):  # one is nested too deeply to be spelled
            payloads.append(
                json.dumps({"prompt": "x", "response_format": response_format}).encode()
            )
    return [payload for payload in payloads if len(payload) < LONGEST_SEED]
