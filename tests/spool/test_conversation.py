"""What of a conversation goes into a prompt, and what is kept of it."""

from dataclasses import replace
from typing import Any

import pytest

from edged.messages import ChatMessage, Prompt, Sampling, SessionUse, Usage
from edged.settings import SessionSettings
from edged.spool.conversation import ANSWER_SHARE, BYTES_PER_TOKEN, Conversation
from edged.spool.sessions import Turn

CTX = 1000


def turn(number: int, tokens: int = 10) -> Turn:
    said = (ChatMessage("user", f"question {number}"), ChatMessage("assistant", f"{number}!"))
    return Turn(number, said, tokens)


def prompt(*contents: str, max_tokens: int = 10, **changes: Any) -> Prompt:
    return Prompt(
        "7",
        "kitchen",
        tuple(ChatMessage("user", each) for each in contents or ("now",)),
        Sampling(max_tokens, 0, 0, 1, 0, 1, seed=42),
        b"digest",
        session="s",
        **changes,
    )


def talk(asked: Prompt, *kept: Turn, ctx: int = CTX, **limits: Any) -> Conversation:
    return Conversation(asked, kept, SessionSettings(**limits), ctx)


def contents(conversation: Conversation) -> list[str]:
    return [message.content for message in conversation.messages]


def test_a_conversation_begins_with_what_is_asked() -> None:
    assert contents(talk(prompt())) == ["now"]


def test_turns_come_before_what_is_asked() -> None:
    assert contents(talk(prompt(), turn(1), turn(2))) == [
        "question 1", "1!", "question 2", "2!", "now",
    ]  # fmt: skip


def test_the_system_message_stays_first() -> None:
    asked = prompt()
    asked = replace(asked, messages=(ChatMessage("system", "be brief"), *asked.messages))

    assert contents(talk(asked, turn(1))) == ["be brief", "question 1", "1!", "now"]


def test_a_reset_leaves_every_turn_out() -> None:
    conversation = talk(prompt(session_reset=True), turn(1), turn(2))

    assert (contents(conversation), conversation.use) == (["now"], SessionUse(turns=1, left=2))


def test_the_oldest_turns_leave_where_there_are_too_many() -> None:
    conversation = talk(prompt(), *map(turn, range(5)), max_turns=3)

    assert contents(conversation)[0] == "question 3"
    assert conversation.use == SessionUse(turns=3, left=3)


def test_the_oldest_turns_leave_where_they_are_too_long() -> None:
    conversation = talk(prompt(), *map(turn, range(5)), max_tokens=25)

    assert conversation.use == SessionUse(turns=3, left=3)


def test_a_long_turn_hides_those_before_it() -> None:
    conversation = talk(prompt(), turn(1), turn(2, tokens=100), turn(3), max_tokens=50)

    assert contents(conversation) == ["question 3", "3!", "now"]


def test_turns_leave_room_for_the_answer() -> None:
    conversation = talk(prompt(max_tokens=100), turn(1, 60), turn(2, 60), ctx=200)

    # 200 less a quarter for the answer, less one token of what is asked.
    assert conversation.use == SessionUse(turns=3, left=0)
    assert talk(prompt(max_tokens=100), turn(1, 90), turn(2, 60), ctx=200).use.left == 1


@pytest.mark.parametrize("max_tokens", [CTX, 100 * CTX])
def test_a_greedy_answer_gets_no_more_than_its_share(max_tokens: int) -> None:
    room = CTX - CTX // ANSWER_SHARE - len("now") // BYTES_PER_TOKEN

    assert talk(prompt(max_tokens=max_tokens), turn(1, room)).use.turns == 2
    assert talk(prompt(max_tokens=max_tokens), turn(1, room + 1)).use.turns == 1


def test_what_is_asked_takes_room_from_the_turns() -> None:
    asked = prompt("x" * BYTES_PER_TOKEN * (CTX - 50))

    assert talk(asked, turn(1, 41)).use.left == 1


def test_it_is_shortened_by_as_many_turns_as_are_needed() -> None:
    conversation = talk(prompt(), *map(turn, range(5)))

    assert conversation.shorten(11)
    assert conversation.use == SessionUse(turns=4, left=2)


def test_it_is_shortened_by_at_least_one_turn() -> None:
    conversation = talk(prompt(), turn(1), turn(2))

    assert conversation.shorten(0)
    assert contents(conversation) == ["question 2", "2!", "now"]


def test_without_turns_it_cannot_be_shortened() -> None:
    conversation = talk(prompt(), turn(1))

    assert conversation.shorten(1000)
    assert not conversation.shorten(1)


def test_the_new_turn_is_what_was_asked_and_answered() -> None:
    new = talk(prompt("a", "b"), turn(1)).new_turn(7, "hello", Usage(30, 10, 5))

    assert (new.client, new.session, new.turn.number) == ("kitchen", "s", 7)
    assert [message.content for message in new.turn.said] == ["a", "b", "hello"]
    assert new.turn.said[-1].role == "assistant"


def test_the_new_turn_leaves_the_system_message_out() -> None:
    asked = prompt()
    asked = replace(asked, messages=(ChatMessage("system", "be brief"), *asked.messages))
    new = talk(asked).new_turn(7, "hello", Usage(30, 10, 5))

    assert [message.role for message in new.turn.said] == ["user", "assistant"]


def test_the_new_turn_counts_what_it_adds() -> None:
    new = talk(prompt(), turn(1, 12), turn(2, 8)).new_turn(7, "hello", Usage(30, 10, 5))

    assert new.turn.tokens == 30 + 5 - 20


def test_the_new_turn_counts_something_whatever_the_engine_says() -> None:
    assert talk(prompt(), turn(1, 50)).new_turn(7, "hello", Usage(30, 10, 5)).turn.tokens == 1


def test_what_was_left_out_leaves_with_the_new_turn() -> None:
    conversation = talk(prompt(), turn(3), turn(4), turn(5), max_turns=3)

    assert conversation.new_turn(7, "hello", Usage(30, 10, 5)).since == 4


def test_with_a_reset_all_leave_with_the_new_turn() -> None:
    conversation = talk(prompt(session_reset=True), turn(3), turn(4))

    assert conversation.new_turn(7, "hello", Usage(30, 10, 5)).since == 7
