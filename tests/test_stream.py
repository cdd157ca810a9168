"""What one requester gets to see: numbered, grouped, and after its acceptance."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import Cancelled
from edged.messages import (
    Accepted,
    ChatMessage,
    Delta,
    Done,
    Failed,
    FinishReason,
    Prompt,
    Reply,
    Sampling,
    Timings,
    Usage,
    Waiting,
)
from edged.stream import GROUP_S, ReplyStream

ACCEPTED = Accepted("attic", "phi", 0, None)
USAGE = Usage(3, 0, 5)
TIMINGS = Timings(1.0, 2.0, 3.0, 4.0)
# Longer than any grouping, shorter than anyone's patience.
PATIENCE_S = 5.0


def prompt(**changes: Any) -> Prompt:
    sampling = Sampling(9, 0, 0, 1, 0, 1, seed=42)
    return Prompt("7", "kitchen", (ChatMessage("user", "hi"),), sampling, b"digest", **changes)


class Requester:
    """Hears a stream, of a prompt that is accepted unless the test says otherwise."""

    def __init__(self, *, is_accepted: bool = True, **changes: Any) -> None:
        self.replies: list[Reply] = []
        self.times_s: list[float] = []
        self._more = asyncio.Event()
        self.stream = ReplyStream(prompt(**changes), self._hear)
        if is_accepted:
            self.stream.accept(ACCEPTED)

    def _hear(self, reply: Reply, _delivered: Callable[[], None] | None = None) -> None:
        self.replies.append(reply)
        self.times_s.append(asyncio.get_running_loop().time())
        self._more.set()

    async def hears(self, count: int) -> None:
        """Wait until so many replies have come."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.replies) < count:
                self._more.clear()
                await self._more.wait()

    def finish(self, text: str = "", n: int = 0, reason: FinishReason = "stop") -> None:
        """What ends it is sent by somebody else, once it is on disk."""
        self._hear(self.stream.finish(text, n, reason, USAGE, TIMINGS))

    def fail(self) -> None:
        self._hear(self.stream.fail(Cancelled("no longer wanted")))

    @property
    def messages(self) -> list[Any]:
        """What came after the acceptance."""
        return [reply.message for reply in self.replies if reply.message != ACCEPTED]

    @property
    def deltas(self) -> list[str]:
        return [message.text for message in self.messages if isinstance(message, Delta)]


# Numbers


async def test_messages_are_numbered_from_0_without_a_gap() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.wait(Waiting("nominal", "x", None))
    on.stream.add("b", 2)
    on.finish()

    assert [reply.seq for reply in on.replies] == [0, 1, 2, 3, 4]


async def test_every_message_carries_the_prompts_id() -> None:
    on = Requester()
    on.finish("a", 1)

    assert {(reply.id, reply.restarts) for reply in on.replies} == {("7", 0)}


async def test_who_asks_again_hears_the_same_acceptance_again() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.repeat_accepted()

    assert on.replies[-1] == on.replies[0]


async def test_a_refusal_is_number_0() -> None:
    on = Requester(is_accepted=False)

    assert on.stream.refuse(Cancelled("no longer wanted")).seq == 0


# Before the acceptance


async def test_nothing_is_said_before_the_acceptance() -> None:
    on = Requester(is_accepted=False)
    on.stream.add("a", 1)
    on.stream.wait(Waiting("nominal", "x", None))
    on.stream.repeat_accepted()

    assert on.replies == []


@pytest.mark.parametrize(
    ("chunk", "deltas"), [("token", ["One. Two. "]), ("sentence", ["One. ", "Two. "])]
)
async def test_what_came_before_the_acceptance_is_said_after_it(
    chunk: str, deltas: list[str]
) -> None:
    on = Requester(is_accepted=False, chunk=chunk)
    on.stream.add("One. ", 1)
    on.stream.add("Two. ", 2)
    on.stream.accept(ACCEPTED)

    assert [reply.seq for reply in on.replies] == list(range(1 + len(deltas)))
    assert on.deltas == deltas


async def test_a_signal_of_life_before_the_acceptance_takes_no_number() -> None:
    on = Requester(is_accepted=False)
    on.stream.wait(Waiting("nominal", "x", None))
    on.stream.accept(ACCEPTED)
    on.finish()

    assert [reply.seq for reply in on.replies] == [0, 1]


@pytest.mark.parametrize("text_in_done", [True, False])
async def test_an_end_before_the_acceptance_comes_after_all_of_the_text(
    *, text_in_done: bool
) -> None:
    on = Requester(is_accepted=False, text_in_done=text_in_done)
    on.stream.add("a", 1)
    end = on.stream.finish("b", 2, "stop", USAGE, TIMINGS)
    on.stream.accept(ACCEPTED)

    assert [reply.seq for reply in (*on.replies, end)] == [0, 1, 2]
    assert on.deltas == ["ab"]


async def test_without_streaming_nothing_precedes_an_early_end() -> None:
    on = Requester(is_accepted=False, stream=False)
    on.stream.add("a", 1)
    end = on.stream.finish("b", 2, "stop", USAGE, TIMINGS)
    on.stream.accept(ACCEPTED)

    assert [reply.seq for reply in (*on.replies, end)] == [0, 1]


# Beginning again


async def test_a_stream_that_begins_again_is_accepted_again_and_counts_from_0() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.restart()
    on.stream.accept(ACCEPTED)
    on.stream.add("b", 1)

    assert [(reply.restarts, reply.seq) for reply in on.replies] == [(0, 0), (0, 1), (1, 0), (1, 1)]


async def test_what_was_said_before_does_not_count_in_the_end() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.add("b", 2)
    on.stream.restart()
    on.stream.accept(ACCEPTED)
    on.stream.add("c", 1)
    on.finish("d", 2)

    assert on.messages[-1].text == "cd"


async def test_what_is_grouped_does_not_come_after_a_restart() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.add("b", 2)
    on.stream.restart()
    await asyncio.sleep(GROUP_S * 2)  # when the group would have been sent

    assert on.deltas == ["a"]


async def test_a_restart_before_the_acceptance_is_said_with_it() -> None:
    on = Requester(is_accepted=False)
    on.stream.add("a", 1)
    on.stream.restart()
    on.stream.accept(ACCEPTED)

    assert [(reply.restarts, reply.seq) for reply in on.replies] == [(1, 0)]


async def test_a_stream_of_a_prompt_that_was_kept_goes_on_counting_its_restarts() -> None:
    replies: list[Reply] = []
    stream = ReplyStream(prompt(), lambda reply, _=None: replies.append(reply), restarts=3)
    stream.accept(ACCEPTED)

    assert [(reply.restarts, reply.seq) for reply in replies] == [(3, 0)]


# Grouping


async def test_the_first_text_is_sent_at_once() -> None:
    on = Requester()
    on.stream.add("a", 1)

    assert on.messages == [Delta("a", 1)]


async def test_text_that_follows_soon_is_grouped() -> None:
    on = Requester()
    for n, text in enumerate("abcd", 1):
        on.stream.add(text, n)
    await on.hears(3)

    assert on.messages == [Delta("a", 1), Delta("bcd", 4)]


async def test_groups_come_at_least_50_ms_apart() -> None:
    on = Requester()
    on.stream.add("a", 1)
    for count in (2, 3, 4):
        on.stream.add("b", count)
        await on.hears(count + 1)

    # A timer of the loop may fire one tick of the clock early.
    assert min(later - earlier for earlier, later in pairwise(on.times_s[1:])) >= GROUP_S * 0.9


async def test_text_after_a_pause_is_sent_at_once() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.add("b", 2)
    await on.hears(3)
    await asyncio.sleep(GROUP_S * 1.2)  # the pause itself
    on.stream.add("c", 3)

    assert on.messages[-1] == Delta("c", 3)


async def test_what_is_grouped_comes_before_the_end() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.add("b", 2)
    on.finish("c", 3)

    assert on.deltas == ["a", "bc"]


async def test_nothing_comes_after_the_end() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.add("b", 2)
    on.finish()
    heard = len(on.replies)
    await asyncio.sleep(GROUP_S * 2)  # when the group would have been sent

    assert (len(on.replies), type(on.messages[-1])) == (heard, Done)


# Sentences


@pytest.mark.parametrize(
    ("pieces", "deltas"),
    [
        (["Hello there. How", " are you? Fine"], ["Hello there. ", "How are you? "]),
        (["One.", " Two"], ["One. "]),
        (["A. B. C"], ["A. ", "B. "]),
        (['"Stop!" he said'], ['"Stop!" ']),
        (["It is 21.5 degrees"], []),
        (["line\nnext"], ["line\n"]),
        (["你好。再见"], ["你好。"]),
        (["wait… what"], ["wait… "]),
        (["no end in sight"], []),
    ],
)
async def test_sentences_are_sent_when_they_are_whole(
    pieces: Sequence[str], deltas: list[str]
) -> None:
    on = Requester(chunk="sentence")
    for n, piece in enumerate(pieces, 1):
        on.stream.add(piece, n)

    assert on.deltas == deltas


async def test_the_last_sentence_is_sent_without_white_space_behind_it() -> None:
    on = Requester(chunk="sentence")
    on.stream.add("One. Two.", 3)
    on.finish()

    assert on.deltas == ["One. ", "Two."]


async def test_an_answer_that_ends_before_its_acceptance_comes_in_sentences_too() -> None:
    on = Requester(is_accepted=False, chunk="sentence")
    on.stream.add("One. Two! Thr", 3)
    on.finish("ee")
    on.stream.accept(ACCEPTED)

    assert on.deltas == ["One. ", "Two! ", "Three"]


# The end


async def test_the_end_has_all_of_the_text() -> None:
    on = Requester()
    on.stream.add("one ", 1)
    on.stream.add("two ", 2)
    on.finish("three", 3)

    assert on.messages[-1] == Done("one two three", "stop", USAGE, TIMINGS, 42)


async def test_the_end_says_the_seed() -> None:
    on = Requester()
    on.finish()

    assert on.messages[-1].seed == 42


async def test_the_end_leaves_the_text_out_where_it_is_not_wanted() -> None:
    on = Requester(text_in_done=False)
    on.stream.add("one", 1)
    on.finish()

    assert on.messages[-1].text is None


async def test_without_streaming_the_end_alone_has_the_text() -> None:
    on = Requester(stream=False)
    on.stream.add("one ", 1)
    on.finish("two", 2)

    assert [type(message) for message in on.messages] == [Done]
    assert on.messages[-1].text == "one two"


async def test_a_failure_is_the_terminal_message() -> None:
    on = Requester()
    on.fail()

    assert on.messages[-1] == Failed("cancelled", 499, "no longer wanted", False, None, {})


async def test_text_before_a_failure_is_not_lost() -> None:
    on = Requester()
    on.stream.add("a", 1)
    on.stream.add("b", 2)
    on.fail()

    assert on.deltas == ["a", "b"]


async def test_it_knows_when_the_requester_heard_of_it_last() -> None:
    on = Requester()
    before_s = asyncio.get_running_loop().time()
    on.stream.wait(Waiting("nominal", "x", None))

    assert before_s <= on.stream.last_sent_s <= asyncio.get_running_loop().time()


@given(
    st.lists(st.text("aB.!? \n“”。é😀", min_size=1, max_size=6), max_size=12),
    st.text("aB. ", max_size=4),
    st.sampled_from(["token", "sentence"]),
)
@settings(max_examples=100, deadline=None)
def test_the_deltas_put_together_are_the_text_of_the_end(
    pieces: list[str], rest: str, chunk: str
) -> None:
    async def stream() -> Requester:
        on = Requester(chunk=chunk)
        for n, piece in enumerate(pieces, 1):
            on.stream.add(piece, n)
        on.finish(rest, len(pieces) + 1)
        return on

    on = asyncio.run(stream())

    assert "".join(on.deltas) == on.messages[-1].text == "".join(pieces) + rest
    assert "" not in on.deltas
