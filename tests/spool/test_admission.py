"""The bounded queue: who may wait, and who is next."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ClientQuota, QueueFull
from edged.settings import QueueSettings
from edged.spool.admission import QUOTA_S, REMEMBERED, Admission


@dataclass(frozen=True)
class Waiter:
    key: str
    priority: int = 5
    client: str = "kitchen"


def queue(*waiters: Waiter, max_prompts: int = 10, **limits: Any) -> Admission[Waiter]:
    made: Admission[Waiter] = Admission(QueueSettings(max_prompts=max_prompts, **limits))
    for waiter in waiters:
        made.admit(waiter, 0.0)
    return made


def of(client: str, *keys: str) -> list[Waiter]:
    return [Waiter(key, client=client) for key in keys]


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

    assert [waiting.admit(Waiter(str(p), p), 0.0) for p in (9, 5, 1, 0)] == [0, 2, 4, 5]


def test_a_full_queue_refuses() -> None:
    waiting = queue(Waiter("a"), Waiter("b"), max_prompts=2)

    with pytest.raises(QueueFull) as caught:
        waiting.admit(Waiter("c", 9), 0.0)
    assert caught.value.details == {"queued": 2, "limit": 2}


def test_a_refusal_says_when_to_try_again() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)

    with pytest.raises(QueueFull) as caught:
        waiting.admit(Waiter("b"), 0.0, retry_after_s=1.5)
    assert (caught.value.may_retry, caught.value.retry_after_s) == (True, 1.5)


def test_who_was_refused_does_not_wait() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)
    with pytest.raises(QueueFull):
        waiting.admit(Waiter("b"), 0.0)

    assert leave(waiting) == ["a"]


def test_there_is_room_again_when_one_has_left() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)
    waiting.next()

    assert waiting.admit(Waiter("b"), 0.0) == 0


def test_there_is_room_again_when_one_was_removed() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)
    waiting.remove("a")

    assert waiting.admit(Waiter("b"), 0.0) == 0


def test_who_was_removed_does_not_leave() -> None:
    waiting = queue(Waiter("a"), Waiter("b"))

    assert (waiting.remove("a"), leave(waiting)) == (Waiter("a"), ["b"])


def test_removing_who_does_not_wait_gives_none() -> None:
    assert queue(Waiter("a")).remove("b") is None


def test_who_comes_back_after_being_removed_waits_at_the_end() -> None:
    waiting = queue(Waiter("a"), Waiter("b"))
    waiting.remove("a")
    waiting.admit(Waiter("a"), 0.0)

    assert leave(waiting) == ["b", "a"]


def test_who_comes_back_with_another_priority_leaves_by_that_one() -> None:
    waiting = queue(Waiter("a", 9), Waiter("b", 5))
    waiting.remove("a")
    waiting.admit(Waiter("a", 1), 0.0)

    assert leave(waiting) == ["b", "a"]


# Who comes back


def test_who_is_put_back_leaves_before_all_others_of_its_priority() -> None:
    waiting = queue(Waiter("a"), Waiter("b"), Waiter("c", 9))
    for _ in range(2):
        waiting.next()
    waiting.put_back(Waiter("a"))

    assert leave(waiting) == ["a", "b"]


def test_of_two_who_are_put_back_the_last_leaves_first() -> None:
    waiting = queue(Waiter("c"))
    for key in "ba":
        waiting.put_back(Waiter(key))

    assert leave(waiting) == ["a", "b", "c"]


def test_a_higher_priority_leaves_before_who_is_put_back() -> None:
    waiting = queue(Waiter("a", 9))
    waiting.put_back(Waiter("b"))

    assert leave(waiting) == ["a", "b"]


def test_who_is_put_back_leaves_before_a_client_whose_turn_it_is() -> None:
    waiting = queue(*of("kitchen", "a"), *of("bedroom", "b"))
    waiting.put_back(waiting.next() or Waiter("none"))

    assert leave(waiting) == ["a", "b"]


def test_who_was_admitted_before_needs_no_room() -> None:
    waiting = queue(Waiter("a"), max_prompts=1)

    assert waiting.restore(Waiter("b")) == 1


# Turns


def test_clients_of_equal_priority_take_turns() -> None:
    waiting = queue(*of("a", "a1", "a2", "a3"), *of("b", "b1", "b2"), *of("c", "c1"))

    assert leave(waiting) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_client_that_had_no_turn_yet_comes_before_one_that_had() -> None:
    waiting = queue(*of("a", "a1", "a2"))
    waiting.next()
    waiting.admit(Waiter("b1", client="b"), 0.0)

    assert leave(waiting) == ["b1", "a2"]


def test_priority_comes_before_turns() -> None:
    waiting = queue(Waiter("a1", 9, "a"), Waiter("a2", 9, "a"), Waiter("b1", 5, "b"))

    assert leave(waiting) == ["a1", "a2", "b1"]


def test_a_client_with_many_waiting_does_not_hold_up_one_with_few() -> None:
    waiting = queue(*of("greedy", *(f"g{number}" for number in range(50))), max_prompts=100)
    waiting.next()

    assert waiting.admit(Waiter("m", client="modest"), 0.0) == 0
    assert leave(waiting)[0] == "m"


def test_turns_of_long_ago_are_forgotten() -> None:
    waiting = queue(max_prompts=10_000)
    for number in range(2 * REMEMBERED):
        waiting.admit(Waiter(str(number), client=str(number)), 0.0)
        waiting.next()

    assert len(waiting._last_turn) == REMEMBERED


def test_only_who_may_leave_leaves() -> None:
    waiting = queue(Waiter("a"), Waiter("b"))

    assert waiting.next(lambda waiter: waiter.key == "b") == Waiter("b")
    assert waiting.next(lambda _: False) is None
    assert leave(waiting) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(4, 6)), max_size=12))
def test_everyone_leaves_once_and_a_newcomer_no_later_than_at_its_position(
    asked: list[tuple[str, int]],
) -> None:
    waiting = queue(max_prompts=100)
    for number, (client, priority) in enumerate(asked):
        waiting.admit(Waiter(str(number), priority, client), 0.0)
    position = waiting.admit(Waiter("new", 5, "newcomer"), 0.0)
    left = leave(waiting)

    assert sorted(left) == sorted([*map(str, range(len(asked))), "new"])
    assert left.index("new") <= position


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_of_equal_priorities_a_newcomer_leaves_at_its_position(clients: list[str]) -> None:
    waiting = queue(max_prompts=100)
    for number, client in enumerate(clients):
        waiting.admit(Waiter(str(number), client=client), 0.0)
    position = waiting.admit(Waiter("new", client="newcomer"), 0.0)

    assert leave(waiting).index("new") == position


# Quotas


def test_a_client_may_have_so_many_waiting() -> None:
    waiting = queue(*of("a", "a1", "a2"), client_queued=2)

    with pytest.raises(ClientQuota) as caught:
        waiting.admit(Waiter("a3", client="a"), 0.0, retry_after_s=1.5)
    assert caught.value.details == {"queued": 2, "limit": 2}
    assert (caught.value.may_retry, caught.value.retry_after_s) == (True, 1.5)


def test_a_clients_quota_leaves_room_for_others() -> None:
    waiting = queue(*of("a", "a1"), client_queued=1)

    waiting.admit(Waiter("b1", client="b"), 0.0)
    assert leave(waiting) == ["a1", "b1"]


def test_a_client_that_spent_its_tokens_waits_until_they_are_a_minute_old() -> None:
    waiting = queue(client_tokens_per_min=100)
    waiting.spend("kitchen", 60, 10.0)
    waiting.spend("kitchen", 40, 20.0)

    with pytest.raises(ClientQuota) as caught:
        waiting.admit(Waiter("a"), 30.0)
    assert caught.value.details == {"tokens": 100, "limit": 100}
    assert caught.value.retry_after_s == 40.0
    waiting.admit(Waiter("a"), 10.0 + QUOTA_S)
    assert leave(waiting) == ["a"]


def test_tokens_of_one_client_do_not_count_against_another() -> None:
    waiting = queue(client_tokens_per_min=100)
    waiting.spend("bedroom", 1000, 0.0)

    waiting.admit(Waiter("a"), 0.0)
    assert leave(waiting) == ["a"]


def test_nothing_is_kept_of_tokens_of_long_ago() -> None:
    waiting = queue(client_tokens_per_min=100)
    for number in range(100):
        waiting.spend(str(number), 1, 0.0)
    waiting.admit(Waiter("a"), 2 * QUOTA_S)

    assert waiting._spent == {}


def test_without_a_limit_no_tokens_are_counted() -> None:
    waiting = queue()
    waiting.spend("kitchen", 10**9, 0.0)

    assert waiting._spent == {}
