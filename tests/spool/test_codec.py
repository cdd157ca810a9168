"""What is kept can be read again, by this version and by the one before."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from edged.spool.codec import prompt_text, read_prompt, read_terminal, terminal_text

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_count = st.integers(0, 2**53)
_size = st.floats(allow_nan=False, allow_infinity=False)
_maybe_size = st.none() | _size
_sampling = st.builds(
    Sampling,
    max_tokens=_count,
    temperature=_size,
    top_k=_count,
    top_p=_size,
    min_p=_size,
    repeat_penalty=_size,
    seed=_count,
    stop=st.lists(_text, max_size=3).map(tuple),
)
_message = st.builds(ChatMessage, st.sampled_from(["system", "user", "assistant"]), _text)
_prompt = st.builds(
    Prompt,
    id=_text,
    client=_text,
    messages=st.lists(_message, min_size=1, max_size=3).map(tuple),
    sampling=_sampling,
    digest=st.binary(max_size=32),
    priority=st.integers(0, 9),
    deadline_s=_maybe_size,
    stream=st.booleans(),
    chunk=st.sampled_from(["token", "sentence"]),
    text_in_done=st.booleans(),
    model=st.none() | _text,
    grammar=st.none() | _text,
    session=st.none() | _text,
    session_reset=st.booleans(),
)
_done = st.builds(
    Done,
    text=st.none() | _text,
    finish_reason=st.sampled_from(["stop", "length", "cancelled", "deadline"]),
    usage=st.builds(Usage, _count, _count, _count),
    timings=st.builds(Timings, _size, _maybe_size, _maybe_size, _maybe_size),
    seed=_count,
    session=st.none() | st.builds(SessionUse, _count, _count),
)
_failed = st.builds(
    Failed,
    code=_text,
    status=st.integers(400, 599),
    error=_text,
    retryable=st.booleans(),
    retry_after_s=_maybe_size,
    details=st.dictionaries(_text, st.none() | _text | _count | _size, max_size=3),
)
_terminal = st.builds(
    Reply, id=_text, seq=_count, restarts=_count, message=st.one_of(_done, _failed)
)


@given(_prompt)
def test_a_prompt_comes_back_equal(prompt: Prompt) -> None:
    assert read_prompt(prompt_text(prompt), prompt.digest) == prompt


@given(_terminal)
def test_a_terminal_reply_comes_back_equal(reply: Reply) -> None:
    assert read_terminal(terminal_text(reply)) == reply


@given(_terminal)
def test_a_terminal_reply_keeps_the_order_of_its_details(reply: Reply) -> None:
    again = read_terminal(terminal_text(reply))

    assert terminal_text(again) == terminal_text(reply)


@given(_prompt)
def test_a_prompt_of_a_later_version_is_read_without_what_is_new(prompt: Prompt) -> None:
    body = json.loads(prompt_text(prompt))
    body["adapter"] = "pirate"
    body["sampling"]["mirostat"] = 2
    for message in body["messages"]:
        message["image"] = {"width": 3}

    assert read_prompt(json.dumps(body), prompt.digest) == prompt


@given(_terminal)
def test_a_terminal_reply_of_a_later_version_is_read_without_what_is_new(reply: Reply) -> None:
    body = json.loads(terminal_text(reply))
    body["node"] = "attic"
    body["message"]["logprobs"] = [1, 2]
    for name in ("usage", "timings", "session"):
        if isinstance(body["message"].get(name), dict):
            body["message"][name]["joules"] = 4.5

    assert read_terminal(json.dumps(body)) == reply


def test_what_an_earlier_version_did_not_know_has_its_default() -> None:
    sampling: dict[str, Any] = {
        "max_tokens": 9, "temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0,
        "repeat_penalty": 1, "seed": 42, "stop": ["\n"],
    }  # fmt: skip
    body = {
        "id": "7",
        "client": "kitchen",
        "messages": [{"role": "user", "content": "hi"}],
        "sampling": sampling,
    }

    assert read_prompt(json.dumps(body), b"digest") == Prompt(
        "7",
        "kitchen",
        (ChatMessage("user", "hi"),),
        Sampling(9, 0, 0, 1, 0, 1, seed=42, stop=("\n",)),
        b"digest",
    )


def test_a_digest_is_not_written_as_text() -> None:
    prompt = Prompt("7", "kitchen", (), Sampling(9, 0, 0, 1, 0, 1, seed=42), b"\x00\xff")

    assert "digest" not in prompt_text(prompt)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"message": {}, "type": "delta"}'])
def test_what_is_no_terminal_reply_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_terminal(text)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"messages": [], "sampling": {"stop": []}}'])
def test_what_is_no_prompt_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_prompt(text, b"")
