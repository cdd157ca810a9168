"""What a payload costs to refuse, and what is said of it."""

import pytest
from pydantic import ValidationError

from edged.errors import InvalidRequest
from edged.transports import body
from edged.transports.body import json_body, parse_json_object, short


@pytest.mark.parametrize("element", [0, {}, {"role": "user"}], ids=["number", "empty", "half"])
def test_of_many_wrong_messages_only_the_first_is_looked_into(
    element: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def describe(error: ValidationError) -> str:
        counts.append(error.error_count())
        return "wrong"

    monkeypatch.setattr(body, "describe_validation", describe)
    with pytest.raises(InvalidRequest):
        json_body({"messages": [element] * 1000})
    assert counts[0] <= 2  # a kilobyte each; one message has two fields


def test_of_many_unknown_keys_of_a_message_only_the_first_is_told() -> None:
    message = {"role": "user", "content": "x"} | {f"k{number}": 0 for number in range(1000)}
    with pytest.raises(InvalidRequest, match=r"^messages\.1\.k0: is not known$") as refusal:
        json_body({"messages": [{"role": "user", "content": "x"}, message]})
    assert refusal.value.details == {"field": "messages"}


def test_an_unknown_key_of_a_message_is_told_in_one_short_line() -> None:
    payload = parse_json_object(b'{"messages": [{"' + b"\\n" * 1000 + b'": 1}]}')
    with pytest.raises(InvalidRequest) as refusal:
        json_body(payload)
    assert refusal.value.error.isprintable()
    assert len(refusal.value.error) < 300


@pytest.mark.parametrize("text", ["x" * 81, "\u202e" * 80, "\U0010ffff" * 9], ids=repr)
def test_what_is_shown_of_a_text_is_as_short_when_it_is_escaped(text: str) -> None:
    assert len(short(text)) == 81
    assert short(text).isprintable()


def test_a_text_of_the_longest_length_is_shown_whole() -> None:
    assert short("é" * 80) == "é" * 80
