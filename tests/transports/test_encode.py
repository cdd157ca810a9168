"""Replies on the wire, field by field."""

import json
from dataclasses import replace
from typing import Any

import pytest

from edged.errors import QueueFull
from edged.messages import (
    Accepted,
    Delta,
    Done,
    Failed,
    Reply,
    ReplyMessage,
    Timings,
    Usage,
    Waiting,
)
from edged.transports.encode import encode_plain, encode_reply, reply_qos, user_properties

DONE = Done(
    text="Grüße",
    finish_reason="stop",
    usage=Usage(3, 1, 5),
    timings=Timings(1.5, None, 100.0, 20.0),
    seed=7,
)
FAILED = Failed.of(QueueFull("too many wait", retry_after_s=2.5, details={"queued": 3}))
HEAD = {"id": "7", "seq": 4, "restarts": 0}


def reply(message: ReplyMessage) -> Reply:
    return Reply("7", 4, 0, message)


def on_the_wire(message: ReplyMessage, correlation: str | None = None) -> Any:
    return json.loads(encode_reply(reply(message), correlation))


def test_an_accepted_has_its_fields() -> None:
    assert on_the_wire(Accepted("attic", "phi", 2, 1.5)) == {
        **HEAD,
        "type": "accepted",
        "node": "attic",
        "model": "phi",
        "position": 2,
        "eta_s": 1.5,
    }


def test_a_delta_has_its_fields() -> None:
    assert on_the_wire(Delta("hi", 2)) == {**HEAD, "type": "delta", "text": "hi", "n": 2}


def test_a_waiting_has_its_fields() -> None:
    assert on_the_wire(Waiting("nominal", "3 wait", None)) == {
        **HEAD,
        "type": "waiting",
        "level": "nominal",
        "reason": "3 wait",
        "retry_after_s": None,
    }


def test_a_done_has_its_fields() -> None:
    assert on_the_wire(DONE) == {
        **HEAD,
        "type": "done",
        "text": "Grüße",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 5},
        "timings": {
            "queued_ms": 1.5,
            "first_token_ms": None,
            "prefill_tokens_per_s": 100.0,
            "decode_tokens_per_s": 20.0,
        },
        "seed": 7,
    }


def test_a_failed_has_its_fields() -> None:
    assert on_the_wire(FAILED) == {
        **HEAD,
        "type": "failed",
        "code": "queue_full",
        "status": 429,
        "error": "too many wait",
        "retryable": True,
        "retry_after_s": 2.5,
        "details": {"queued": 3},
    }


def test_a_done_whose_text_is_not_wanted_leaves_it_out() -> None:
    assert "text" not in on_the_wire(replace(DONE, text=None))


def test_an_empty_answer_is_still_in_its_done() -> None:
    assert on_the_wire(replace(DONE, text=""))["text"] == ""


def test_a_correlation_that_came_as_text_is_echoed() -> None:
    assert on_the_wire(Delta("hi", 2), "order-7")["correlation"] == "order-7"


def test_without_a_correlation_there_is_no_such_field() -> None:
    assert "correlation" not in on_the_wire(Delta("hi", 2))


def test_text_is_utf8_and_not_escaped() -> None:
    assert "Grüße 😀".encode() in encode_reply(reply(Delta("Grüße 😀", 2)), None)


def test_the_same_reply_is_the_same_bytes() -> None:
    assert encode_reply(reply(DONE), "x") == encode_reply(reply(DONE), "x")


@pytest.mark.parametrize(
    ("message", "payloads"),
    [
        (Accepted("attic", "phi", 2, 1.5), []),
        (Waiting("nominal", "3 wait", None), []),
        (Delta("Grüße", 2), ["Grüße".encode()]),
        (DONE, [b""]),
        (FAILED, [b"queue_full: too many wait", b""]),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_plain_text_is_the_pieces_and_one_empty_message(
    message: ReplyMessage, payloads: list[bytes]
) -> None:
    assert encode_plain(reply(message)) == payloads


def test_the_facts_to_sort_by_are_user_properties() -> None:
    assert user_properties(reply(Delta("hi", 2))) == [
        ("edged-id", "7"),
        ("edged-seq", "4"),
        ("edged-restarts", "0"),
        ("edged-type", "delta"),
    ]


@pytest.mark.parametrize(
    ("message", "qos"),
    [
        (Accepted("attic", "phi", 2, 1.5), 1),
        (Waiting("nominal", "3 wait", None), 0),
        (Delta("hi", 2), 0),
        (DONE, 1),
        (FAILED, 1),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_only_what_must_arrive_is_sent_with_qos_1(message: ReplyMessage, qos: int) -> None:
    assert reply_qos(reply(message)) == qos
