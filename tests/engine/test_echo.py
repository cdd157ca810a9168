"""The engine without weights: deterministic, one token a byte."""

import numpy as np
import pytest

from edged.engine.chat import ChatEncoder
from edged.engine.echo import EchoEngine
from edged.engine.frames import Load
from edged.engine.protocol import DEFAULT_CTX, BatchChunk, Logits
from edged.messages import ChatMessage


class Greedy:
    def pick(self, logits: Logits) -> int:
        return int(np.argmax(logits))


def echo(slots: int = 1, ctx: int | None = None) -> EchoEngine:
    return EchoEngine(Load("echo", None, "", ctx, slots, 1, 0))


def read(engine: EchoEngine, *said: ChatMessage, slot: int = 0) -> None:
    ids = ChatEncoder(engine).encode(said)
    engine.decode([BatchChunk(slot, 0, ids, outputs=1)])


def answer(engine: EchoEngine, position: int, slot: int = 0) -> bytes:
    """Sample until the end, feeding each token back."""
    tokens: list[int] = []
    while (token := engine.sample(slot, Greedy())) not in engine.chat.stop_ids:
        engine.decode([BatchChunk(slot, position + len(tokens), [token], outputs=1)])
        tokens.append(token)
    return b"".join(map(engine.token_bytes, tokens))


def length(engine: EchoEngine, *said: ChatMessage) -> int:
    return len(ChatEncoder(engine).encode(said))


def test_it_answers_with_what_the_user_said() -> None:
    engine, said = echo(), ChatMessage("user", "grüß 😀")
    read(engine, said)

    assert answer(engine, length(engine, said)) == "grüß 😀".encode()


def test_it_answers_with_the_last_of_several_turns() -> None:
    engine = echo()
    said = [
        ChatMessage("system", "be brief"),
        ChatMessage("user", "one"),
        ChatMessage("assistant", "first"),
        ChatMessage("user", "two"),
    ]
    read(engine, *said)

    assert answer(engine, length(engine, *said)) == b"two"


def test_it_answers_nothing_when_no_user_spoke() -> None:
    engine, said = echo(), ChatMessage("system", "be brief")
    read(engine, said)

    assert answer(engine, length(engine, said)) == b""


def test_white_space_around_what_was_said_is_not_echoed() -> None:
    engine, said = echo(), ChatMessage("user", " \n two words \n")
    read(engine, said)

    assert answer(engine, length(engine, said)) == b"two words"


def test_slots_do_not_hear_each_other() -> None:
    engine = echo(slots=2)
    read(engine, ChatMessage("user", "two"), slot=1)
    read(engine, ChatMessage("user", "one"), slot=0)

    assert answer(engine, length(engine, ChatMessage("user", "one")), slot=0) == b"one"


def test_a_forgotten_slot_can_be_used_again() -> None:
    engine, said = echo(), ChatMessage("user", "two")
    read(engine, ChatMessage("user", "one"))
    engine.forget(0, 0)
    read(engine, said)

    assert answer(engine, length(engine, said)) == b"two"


def test_forgetting_part_of_an_answer_says_it_again() -> None:
    engine, said = echo(), ChatMessage("user", "ab")
    read(engine, said)
    engine.decode([BatchChunk(0, length(engine, said), [ord("a")], outputs=1)])
    engine.forget(0, length(engine, said))

    assert engine.sample(0, Greedy()) == ord("a")


def test_tokens_at_another_position_than_the_next_are_a_defect() -> None:
    engine = echo()

    with pytest.raises(AssertionError, match="position 1 after 0"):
        engine.decode([BatchChunk(0, 1, [65], outputs=0)])


def test_special_tokens_are_single_ids_only_where_they_are_parsed() -> None:
    engine = echo()

    assert [len(engine.tokenise("<|user|>", parse_special=parse)) for parse in (True, False)] == [
        1,
        len("<|user|>"),
    ]


def test_a_token_is_a_byte() -> None:
    engine = echo()

    assert [engine.token_bytes(token) for token in engine.tokenise("é", parse_special=False)] == [
        b"\xc3",
        b"\xa9",
    ]


def test_control_tokens_have_no_bytes() -> None:
    engine = echo()
    tokens = engine.tokenise("<s><|end|>", parse_special=True)

    assert [engine.token_bytes(token) for token in tokens] == [b"", b""]


@pytest.mark.parametrize(("asked", "given"), [(None, DEFAULT_CTX), (64, 64)])
def test_the_context_is_what_was_asked_for(asked: int | None, given: int) -> None:
    assert echo(ctx=asked).ctx == given
