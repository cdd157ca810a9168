"""The book of incoming messages: what is acknowledged, when, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from edged.transports.acknowledgements import Acknowledgements


def test_what_is_done_is_acknowledged() -> None:
    book = Acknowledgements()
    book.finish(book.take(7))

    assert book.due() == [7]


def test_nothing_is_acknowledged_before_it_is_done() -> None:
    book = Acknowledgements()
    book.take(7)

    assert book.due() == []


def test_one_that_is_not_done_holds_back_those_behind_it() -> None:
    book = Acknowledgements()
    book.take(1)
    book.finish(book.take(2))

    assert book.due() == []


def test_those_held_back_follow_in_the_order_received() -> None:
    book = Acknowledgements()
    first, second, third = book.take(5), book.take(9), book.take(2)
    for token in (third, second, first):
        book.finish(token)

    assert book.due() == [5, 9, 2]


def test_what_was_acknowledged_is_not_acknowledged_again() -> None:
    book = Acknowledgements()
    token = book.take(7)
    book.finish(token)
    book.due()
    book.finish(token)

    assert book.due() == []


def test_to_be_done_twice_does_not_count_for_the_next() -> None:
    book = Acknowledgements()
    first = book.take(1)
    book.finish(first)
    book.due()
    book.take(2)
    book.finish(first)

    assert book.due() == []


def test_a_token_of_an_earlier_connection_means_nothing() -> None:
    book = Acknowledgements()
    token = book.take(7)
    book.forget()
    book.take(7)  # a broker that lost its state uses its ids again, for other messages
    book.finish(token)

    assert book.due() == []


def test_a_token_of_an_earlier_connection_does_not_spoil_the_count() -> None:
    book = Acknowledgements()
    book.take(1)
    late = book.take(2)
    book.forget()
    book.finish(book.take(8))
    book.finish(late)

    assert book.due() == [8]


def test_the_book_tells_how_many_are_not_acknowledged() -> None:
    book = Acknowledgements()
    book.take(1)
    book.finish(book.take(2))

    assert len(book) == 2


@given(st.data())
def test_every_message_is_acknowledged_once_and_in_order_whenever_it_is_done(
    data: st.DataObject,
) -> None:
    book = Acknowledgements()
    ids = data.draw(st.lists(st.integers(1, 9), max_size=30))
    tokens = [book.take(packet_id) for packet_id in ids]
    acknowledged: list[int] = []
    for token in data.draw(st.permutations(tokens)):
        book.finish(token)
        acknowledged += book.due()

    assert acknowledged == ids
