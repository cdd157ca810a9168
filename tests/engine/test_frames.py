"""Frames survive the way from one process to the other."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.frames import (
    LENGTH,
    Cancel,
    Finished,
    Frame,
    Heartbeat,
    Load,
    LoadFailed,
    Piece,
    Ready,
    Refused,
    Submit,
    decode,
    encode,
)
from edged.messages import ChatMessage, Sampling

SAMPLING = Sampling(
    max_tokens=5,
    temperature=0.7,
    top_k=40,
    top_p=0.9,
    min_p=0.05,
    repeat_penalty=1.1,
    seed=2**53 - 1,
    stop=("\n", "é"),
)
FRAMES: list[Frame] = [
    Load("auto", None, "/var/lib/edged", None, 2, 4, 0.0),
    Load("echo", "/models/phi.gguf", "state", 4096, 1, 1, 2.5),
    Submit(1, (ChatMessage("system", "s"), ChatMessage("user", "“ü”\0\n")), SAMPLING),
    Cancel(1, "deadline"),
    Ready("echo", "phi", "Q4_0", 4096, 2, 0.5, 1, 2),
    LoadFailed("no such file"),
    Piece(1, "😀", 4, 12.5),
    Finished(1, "rest", "length", 3, 0, 5, 0.1, 0.2),
    Refused(1, "prompt_too_long", "too long", {"ctx": 64, "needed": 65.5, "at": None, "f": "x"}),
    Heartbeat(None, 10.0),
    Heartbeat(0.25, 1.0),
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_arrives_as_it_was_sent(frame: Frame) -> None:
    assert decode(encode(frame)[LENGTH.size :]) == frame


@given(texts, st.lists(texts, max_size=3).map(tuple))
@settings(max_examples=100)
def test_every_text_arrives_as_it_was_sent(text: str, stop: tuple[str, ...]) -> None:
    sampling = Sampling(1, 0, 0, 1, 0, 1, 0, stop)
    frame = Submit(1, (ChatMessage("user", text),), sampling)

    assert decode(encode(frame)[LENGTH.size :]) == frame


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_the_length_in_front_is_that_of_the_body(frame: Frame) -> None:
    data = encode(frame)

    assert LENGTH.unpack(data[: LENGTH.size]) == (len(data) - LENGTH.size,)


def test_the_length_is_big_endian_in_four_bytes() -> None:
    assert LENGTH.pack(1) == b"\0\0\0\1"


def test_a_path_that_is_not_utf8_arrives_as_it_was_sent() -> None:
    path = b"/models/caf\xe9.gguf".decode("utf-8", "surrogateescape")
    frame = Load("auto", path, "state", None, 1, 1, 0.0)

    assert decode(encode(frame)[LENGTH.size :]) == frame


@pytest.mark.parametrize(
    ("body", "error"),
    [(b"{", ValueError), (b'{"frame": "Nonsense"}', KeyError), (b"{}", KeyError)],
)
def test_a_body_that_is_no_frame_is_a_defect(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode(body)


def test_fields_of_another_frame_are_a_defect() -> None:
    fields: Any = b'{"frame": "Cancel", "job": 1, "text": "x"}'

    with pytest.raises(TypeError):
        decode(fields)
