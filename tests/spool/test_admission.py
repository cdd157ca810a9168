"""The bounded queue: who may wait, and who is next."""

from dataclasses import dataclass

import pytest

from edged.errors import QueueFull
from edged.spool.admission import Admission


@dataclass(frozen=True)
class Waiter:
    key: str
    priority: int = 5


def queue(*waiters: Waiter, max_prompts: int = 10) -> Admission[Waiter]:
    made: Admission[Waiter] = Admission(max_prompts)
    for waiter in waiters:
        made.admit(waiter)
    return made


def leave(waiting: Admission[Waiter]) -> list[str]:
    """The keys in the order in which they leave."""
    left = []
    while (waiter := waiting.next()) is not None:
        left.append(waiter.key)
    return left


def test_equal_priorities_leave_in_arrival_order() -> None:
    assert leave(queue(Waiter("a"), Waiter("b"), Waiter("c"))) == ["a", "b", "c"]


def test_a_higher_priority_leaves_first() -> None:
    assert leave(queue(Waiter("a", 1), Waiter("b", 9), Waiter("c", 5))) == ["b", "c", "a"]


def test_an_empty_queue_has_no_next() -> None:
    assert queue().next() is None


def test_the_position_is_how_many_leave_before() -> None:
    waiting = queue(Waiter("a", 5), Waiter("b", 1))

    assert [waiting.admit(Waiter(str(p), p)) for p in (9, 5, 1, 0)] == [0, 2, 4, 5]


def test_a_full_queue_refuses() -> None:
    waiting = queue(Waiter("a"), Waiter("b"), max_prompts=2)

    with pytest.raises(QueueFull) as caught:
        waiting.admit(Waiter("c", 9))
    assert caught.value.details == {"queued": 2, "limit": 2}


def test_a_refusal_says_when_to_try_again() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)

    with pytest.raises(QueueFull) as caught:
        waiting.admit(Waiter("b"), retry_after_s=1.5)
    assert (caught.value.may_retry, caught.value.retry_after_s) == (True, 1.5)


def test_who_was_refused_does_not_wait() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)
    with pytest.raises(QueueFull):
        waiting.admit(Waiter("b"))

    assert leave(waiting) == ["a"]


def test_there_is_room_again_when_one_has_left() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)
    waiting.next()

    assert waiting.admit(Waiter("b")) == 0


def test_there_is_room_again_when_one_was_removed() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)
    waiting.remove("a")

    assert waiting.admit(Waiter("b")) == 0


def test_who_was_removed_does_not_leave() -> None:
    waiting = queue(Waiter("a"), Waiter("b"))

    assert (waiting.remove("a"), leave(waiting)) == (Waiter("a"), ["b"])


def test_removing_who_does_not_wait_gives_none() -> None:
    assert queue(Waiter("a")).remove("b") is None


def test_who_comes_back_after_being_removed_waits_at_the_end() -> None:
    waiting = queue(Waiter("a"), Waiter("b"))
    waiting.remove("a")
    waiting.admit(Waiter("a"))

    assert leave(waiting) == ["b", "a"]


def test_who_comes_back_with_another_priority_leaves_by_that_one() -> None:
    waiting = queue(Waiter("a", 9), Waiter("b", 5))
    waiting.remove("a")
    waiting.admit(Waiter("a", 1))

    assert leave(waiting) == ["b", "a"]
