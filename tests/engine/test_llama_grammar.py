"""An answer is held to its grammar, and to what its text will be."""

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from edged.engine.llama_grammar import LlamaGrammar
from edged.errors import EngineFailed
from tests.engine.grammar_walks import (
    byte_tokens,
    derives,
    ends,
    follow,
    is_complete,
    pieces,
    random_answer,
    start,
    vocabulary,
)

LETTERS = r'root ::= "\"" [ !#-\[\]-\uD7FF\uE000-\U0010FFFF]{3} "\""'


def token(text: str) -> int:
    return pieces().index(text.encode())


def test_a_token_that_goes_on_is_allowed_and_another_is_not() -> None:
    grammar = start('root ::= "on" | "off"')

    assert grammar.allows(token("o"))
    assert not grammar.allows(token("x"))


def test_the_mask_leaves_what_is_allowed_as_it_was() -> None:
    grammar = start('root ::= "on" | "off"')
    logits = np.arange(vocabulary().size, dtype=np.float32)
    masked = grammar.mask(logits)

    allowed = [each for each in range(vocabulary().size) if grammar.allows(each)]
    assert np.flatnonzero(np.isfinite(masked)).tolist() == allowed
    assert masked[allowed].tolist() == logits[allowed].tolist()


def test_the_mask_is_a_copy() -> None:
    logits = np.zeros(vocabulary().size, dtype=np.float32)
    start('root ::= "on"').mask(logits)

    assert not logits.any()


def test_a_token_that_ends_the_answer_is_allowed_when_it_is_complete() -> None:
    grammar = start('root ::= "on" "e"?')
    complete = [is_complete(grammar)]
    for letter in (b"o", b"n", b"e"):
        assert follow(grammar, letter)
        complete.append(is_complete(grammar))

    assert complete == [False, False, True, True]


def test_only_what_ends_the_answer_is_left_when_nothing_can_follow() -> None:
    grammar = start('root ::= "on"')
    assert follow(grammar, b"on")
    masked = grammar.mask(np.zeros(vocabulary().size, dtype=np.float32))

    assert {*np.flatnonzero(np.isfinite(masked)).tolist()} == ends()


def test_a_refused_token_is_not_accepted() -> None:
    grammar = start('root ::= "on"')
    with pytest.raises(EngineFailed, match="does not fit"):
        grammar.accept(token("x"))

    assert follow(grammar, b"on")


@pytest.mark.parametrize("text", ["root ::= missing", 'other ::= "x"', 'root ::= root "x"'])
def test_a_grammar_that_llama_cpp_refuses_fails_the_engine(text: str) -> None:
    with pytest.raises(EngineFailed, match="does not take"):
        LlamaGrammar(vocabulary().pointer, text)


def test_a_control_token_is_no_text() -> None:
    (user,) = vocabulary().tokenise("<|user|>", parse_special=True)
    grammar = start(r"root ::= [<|a-z>]+")
    masked = grammar.mask(np.zeros(vocabulary().size, dtype=np.float32))

    assert not grammar.allows(user)
    assert masked[user] == -np.inf


@pytest.mark.parametrize(
    "data",
    [
        b"\xc0\xaf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\xaf",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xff",
        b"\xc3a",
        b"\xe2\x82a",
    ],
)
def test_bytes_that_are_no_utf8_are_refused(data: bytes) -> None:
    assert not follow(start(LETTERS), b'"' + data)


@pytest.mark.parametrize(
    "text", ["abc", "äöü", "日本語", "🌍🌡💡", "\u0800\ud7ff\ue000", "\U0010ffffab"]
)
def test_code_points_are_counted_however_their_bytes_come(text: str) -> None:
    assert derives(LETTERS, f'"{text}"')
    assert not derives(LETTERS, f'"{text}x"')


def test_half_a_code_point_does_not_end_an_answer() -> None:
    grammar = start(r"root ::= [a-\U0010FFFF]?")
    assert is_complete(grammar)
    assert follow(grammar, "é".encode()[:1])
    assert not is_complete(grammar)


def test_the_mask_knows_what_finishes_a_code_point() -> None:
    grammar = start(r'root ::= "\u07FF" | "\u0820"')
    assert follow(grammar, b"\xe0")
    masked = grammar.mask(np.zeros(vocabulary().size, dtype=np.float32))

    # E0 9F BF would be another spelling of U+07FF, which UTF-8 forbids.
    assert np.flatnonzero(np.isfinite(masked)).tolist() == [byte_tokens()[0xA0]]


@pytest.mark.parametrize("seed", range(20))
def test_text_of_single_bytes_is_utf8_of_the_right_length(seed: int) -> None:
    answer = random_answer(LETTERS, seed, lambda piece: 10.0 if piece >= b"\x80" else 0.0)

    assert answer is not None
    assert len(answer.decode()) == 5
