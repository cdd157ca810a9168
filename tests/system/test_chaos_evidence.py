"""What the storm's judge finds: each promise broken by one message or one line of the book."""

import json
from typing import Any

import pytest

from benchmarks.chaos.clients import Heard
from benchmarks.chaos.evidence import Verdict, judge
from benchmarks.chaos.prompts import prompts
from benchmarks.chaos.reference import Reference

(ASKED,) = prompts(1, 1, seed=0)
# Six tokens and the end; the fourth, the space before "lamp", was nearly another one.
TEXT = "Okay, the lamp."
REFERENCE = Reference(
    TEXT,
    ends=[(4, 1), (5, 2), (9, 3), (10, 4), (14, 5), (15, 6)],
    gaps=[3.0, 3.0, 3.0, 0.1, 3.0, 3.0, 3.0],
)


def heard(kind: str, seq: int, restarts: int = 0, **fields: Any) -> Heard:
    body = {"id": ASKED.id, "seq": seq, "restarts": restarts, "type": kind, **fields}
    topic = f"edged/v1/chaos/completion/{ASKED.client}/{ASKED.id}"
    return Heard(ASKED.client, topic, json.dumps(body).encode(), 0.0)


def done(text: str = TEXT, seq: int = 3, restarts: int = 0, **fields: Any) -> Heard:
    return heard("done", seq, restarts, text=text, finish_reason="stop", **fields)


def failed(code: str, seq: int = 0) -> Heard:
    return heard("failed", seq, code=code, error="")


def line(what: str, pid: int = 1) -> str:
    return json.dumps({"what": what, "client": ASKED.client, "id": ASKED.id, "pid": pid})


ACCEPTED = heard("accepted", 0)
STREAM = [
    ACCEPTED,
    heard("delta", 1, text="Okay, the"),
    heard("delta", 2, text=" lamp."),
    done(),
]
BOOK = [line("submitted"), line("committed")]


def verdict(said: list[Heard], book: list[str] = BOOK) -> Verdict:
    return judge([ASKED], [REFERENCE], said, book)


def broken(said: list[Heard], book: list[str] = BOOK) -> set[str]:
    return {violation.promise for violation in verdict(said, book).violations}


@pytest.mark.parametrize(
    "said",
    [
        STREAM,
        [*STREAM, STREAM[-1], ACCEPTED],
        [STREAM[0], STREAM[2], STREAM[3]],
        [failed("disk_full"), *STREAM],
        [*STREAM[:2], heard("accepted", 0, 1), heard("delta", 1, 1, text=TEXT), done(TEXT, 2, 1)],
    ],
    ids=["whole", "repeated", "with a gap", "refused before", "begun again"],
)
def test_what_is_right_breaks_nothing(said: list[Heard]):
    said = [each for each in said if b'Okay"' not in each.payload]  # a gap, not a short answer
    assert broken(said) == set()


@pytest.mark.parametrize(
    ("said", "promise"),
    [
        ([ACCEPTED], "one result"),
        ([*STREAM, done(seed=1)], "repeats byte by byte the same"),
        ([ACCEPTED, failed("engine_failed", 1)], "answered"),
        ([failed("invalid_request"), *STREAM], "no other refusals"),
        ([ACCEPTED, failed("disk_full"), *STREAM], "accepted is accepted"),
        ([done("Okay, a lamp.")], "the greedy text"),
        ([*STREAM, heard("delta", 1, text="Okay")], "(id, restarts, seq) is one message"),
        ([*STREAM, heard("accepted", 0, 1)], "no stream after the result"),
        ([ACCEPTED, heard("delta", 1, text="Well"), done()], "deltas join to the text"),
        ([ACCEPTED, heard("delta", 1, text="Okay"), done(seq=2)], "deltas join to the text"),
    ],
)
def test_a_promise_broken_by_a_message_is_found(said: list[Heard], promise: str):
    assert promise in broken(said)


def test_an_answer_that_parts_at_a_tie_is_none_of_our_faults():
    found = verdict([done("Okay, the lamb.")])

    assert (found.violations, found.ties) == ([], [ASKED.key])


@pytest.mark.parametrize(
    ("book", "promise"),
    [
        ([*BOOK, line("submitted", pid=2)], "not executed after its result"),
        ([*BOOK, line("committed", pid=2)], "committed once"),
        ([line("committed")], "the book is whole"),
    ],
)
def test_a_promise_broken_in_the_book_is_found(book: list[str], promise: str):
    assert broken(STREAM, book) == {promise}


def test_a_line_that_was_cut_by_a_kill_is_counted():
    assert verdict(STREAM, [line("submitted")[:20], *BOOK]).unreadable_lines == 1
