"""Text that grows: whole code points, and stop sequences wherever the bytes are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.text import TextStream

# Few characters, so that stop sequences overlap.
ALPHABET = "ab 😀"
texts = st.text(ALPHABET, max_size=24)
stops = st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=4).map(tuple)


@st.composite
def cut_bytes(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    data = draw(source)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=len(data))))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def whole(stream: TextStream, pieces: list[bytes]) -> str:
    return "".join([stream.feed(piece) for piece in pieces]) + stream.finish()


def plain(*stop: str) -> TextStream:
    return TextStream(stop, strip_leading_space=False)


def up_to_first_stop(text: str, stop: tuple[str, ...]) -> str:
    """The first stop sequence is the one that is complete first."""
    for end in range(1, len(text) + 1):
        if begins := [end - len(one) for one in stop if text[:end].endswith(one)]:
            return text[: min(begins)]
    return text


def overlap(text: str, stop: tuple[str, ...]) -> int:
    """How many characters at the end of the text may be the beginning of a stop sequence."""
    return max(
        (n for one in stop for n in range(1, len(one)) if text.endswith(one[:n])),
        default=0,
    )


@given(cut_bytes(texts.map(str.encode)), stops)
@settings(max_examples=200)
def test_the_text_up_to_the_first_stop_sequence_comes_out_however_it_is_cut(
    pieces: list[bytes], stop: tuple[str, ...]
) -> None:
    text = b"".join(pieces).decode()

    assert whole(plain(*stop), pieces) == up_to_first_stop(text, stop)


@given(cut_bytes(texts.map(str.encode)), stops)
@settings(max_examples=200)
def test_what_may_become_a_stop_sequence_is_held_back_and_nothing_else(
    pieces: list[bytes], stop: tuple[str, ...]
) -> None:
    stream, fed, shown = plain(*stop), b"", ""
    for piece in pieces:
        fed += piece
        shown += stream.feed(piece)
        if stream.stopped:
            return
        decoded = fed.decode(errors="ignore")
        assert shown == decoded[: len(decoded) - overlap(decoded, stop)]


@given(cut_bytes(texts.map(str.encode)), stops)
@settings(max_examples=100)
def test_it_says_that_it_stopped_exactly_when_a_stop_sequence_was_met(
    pieces: list[bytes], stop: tuple[str, ...]
) -> None:
    stream = plain(*stop)
    whole(stream, pieces)

    text = b"".join(pieces).decode()
    assert stream.stopped == any(one in text for one in stop)


@given(cut_bytes(st.binary(max_size=24)))
@settings(max_examples=200)
def test_bytes_that_are_no_utf8_are_replaced_alike_however_they_are_cut(
    pieces: list[bytes],
) -> None:
    assert whole(plain(), pieces) == b"".join(pieces).decode(errors="replace")


@given(cut_bytes(texts.map(str.encode)))
@settings(max_examples=100)
def test_one_leading_space_is_stripped_however_it_is_cut(pieces: list[bytes]) -> None:
    text = b"".join(pieces).decode()
    stream = TextStream((), strip_leading_space=True)

    assert whole(stream, pieces) == text.removeprefix(" ")


def test_a_code_point_comes_out_with_its_last_byte() -> None:
    stream = plain()

    assert [stream.feed(bytes([byte])) for byte in "😀".encode()] == ["", "", "", "😀"]


def test_an_unfinished_code_point_becomes_the_replacement_character() -> None:
    stream = plain()
    stream.feed("😀".encode()[:3])

    assert stream.finish() == "�"


def test_a_stop_sequence_across_pieces_is_never_partly_shown() -> None:
    stream = plain("STOP")

    assert [stream.feed(piece) for piece in (b"go S", b"TO", b"P on")] == ["go ", "", ""]


def test_the_beginning_of_a_stop_sequence_comes_out_when_it_goes_on_otherwise() -> None:
    stream = plain("STOP")

    assert [stream.feed(piece) for piece in (b"ST", b"AR")] == ["", "STAR"]


def test_the_beginning_of_a_stop_sequence_comes_out_at_the_end() -> None:
    stream = plain("STOP")
    stream.feed(b"STO")

    assert stream.finish() == "STO"


def test_a_stop_sequence_that_overlaps_itself_is_found() -> None:
    assert whole(plain("aab"), [b"a", b"a", b"a", b"b"]) == "a"


def test_of_two_stop_sequences_the_one_complete_first_counts() -> None:
    assert whole(plain("abcd", "c"), [b"abcd"]) == "ab"


def test_nothing_is_shown_after_a_stop_sequence() -> None:
    stream = plain("!")
    stream.feed(b"so! ")

    assert (stream.feed(b"more"), stream.finish()) == ("", "")


def test_a_control_token_without_bytes_does_not_use_up_the_leading_space() -> None:
    stream = TextStream((), strip_leading_space=True)

    assert [stream.feed(piece) for piece in (b"", b" hi")] == ["", "hi"]


def test_only_the_first_of_two_leading_spaces_is_stripped() -> None:
    assert TextStream((), strip_leading_space=True).feed(b"  hi") == " hi"


@pytest.mark.parametrize("stop", ["\n", "é", "😀x"])
def test_a_stop_sequence_is_matched_in_characters_not_in_bytes(stop: str) -> None:
    pieces = [bytes([byte]) for byte in f"before{stop}after".encode()]

    assert whole(plain(stop), pieces) == "before"
