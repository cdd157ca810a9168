"""Terminal messages are sent until somebody is responsible for them, and not all at once."""

from collections.abc import Callable

from edged.answers import MOST_AT_ONCE, Answers
from edged.job import Job
from edged.messages import Done, Origin, Reply, Timings, Usage
from edged.stream import ReplyStream
from tests.instant_spool import InstantSpool
from tests.pipeline_line import Requester, prompt

DONE = Done("hello", "stop", Usage(3, 0, 5), Timings(1.0, 2.0, 3.0, 4.0), 42)


class Bus:
    """Takes answers, and says of each that it has arrived when the test wants it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._arrivals: list[Callable[[], None]] = []

    def __call__(self, reply: Reply, delivered: Callable[[], None] | None = None) -> None:
        self.sent.append(reply.id)
        assert delivered is not None
        self._arrivals.append(delivered)

    def arrive(self, count: int) -> None:
        for _ in range(count):
            self._arrivals.pop(0)()


def end(answers: Answers, number: int, bus: Bus) -> list[str]:
    """End a job; gives what was called."""
    asked = prompt(str(number))
    job = Job(number, asked, Origin(bus, "address"), ReplyStream(asked, bus), 0.0)
    calls: list[str] = []
    answers.end(job, Reply(asked.id, 1, 0, DONE), None, lambda: calls.append("written"))
    return calls


async def test_an_answer_is_sent_once_it_is_written() -> None:
    spool, bus = InstantSpool(), Bus()
    spool.is_slow = True
    calls = end(Answers(spool, lambda _: bus), 1, bus)  # type: ignore[arg-type]
    before = (list(calls), list(bus.sent))
    spool.commit()

    assert (before, calls, bus.sent) == (([], []), ["written"], ["1"])


async def test_what_arrived_is_noted() -> None:
    spool, bus = InstantSpool(), Bus()
    end(Answers(spool, lambda _: bus), 1, bus)  # type: ignore[arg-type]
    before = spool.undelivered([], 10)
    bus.arrive(1)

    assert (len(before), spool.undelivered([], 10)) == (1, [])


async def test_no_more_are_on_their_way_than_allowed() -> None:
    spool, bus = InstantSpool(), Bus()
    answers = Answers(spool, lambda _: bus)  # type: ignore[arg-type]
    for number in range(MOST_AT_ONCE + 10):
        end(answers, number, bus)

    assert len(bus.sent) == MOST_AT_ONCE


async def test_what_was_held_back_is_sent_when_others_have_arrived() -> None:
    spool, bus = InstantSpool(), Bus()
    answers = Answers(spool, lambda _: bus)  # type: ignore[arg-type]
    count = 3 * MOST_AT_ONCE
    for number in range(count):
        end(answers, number, bus)
    for _ in range(count):
        bus.arrive(1)

    assert bus.sent == [str(number) for number in range(count)]


async def test_what_has_arrived_is_not_sent_again_before_that_is_written() -> None:
    spool, bus = InstantSpool(), Bus()
    answers = Answers(spool, lambda _: bus)  # type: ignore[arg-type]
    for number in range(MOST_AT_ONCE + 1):
        end(answers, number, bus)
    spool.is_slow = True
    bus.arrive(MOST_AT_ONCE)

    assert sorted(bus.sent, key=int) == [str(number) for number in range(MOST_AT_ONCE + 1)]


async def test_after_a_restart_as_many_are_sent_as_may_be_on_their_way() -> None:
    spool, bus = InstantSpool(), Bus()
    answers = Answers(spool, lambda _: bus)  # type: ignore[arg-type]
    count = MOST_AT_ONCE + 50
    for number in range(count):
        end(answers, number, bus)
    after = Bus()
    Answers(spool, lambda _: after).send_undelivered()  # type: ignore[arg-type]
    first = len(after.sent)
    for _ in range(count):
        after.arrive(1)

    assert first == MOST_AT_ONCE
    assert after.sent == [str(number) for number in range(count)]


async def test_each_goes_to_its_own_address() -> None:
    spool, bus = InstantSpool(), Bus()
    end(Answers(spool, lambda _: bus), 1, bus)  # type: ignore[arg-type]
    heard: dict[str, Requester] = {}

    def send_to(address: str) -> Requester:
        return heard.setdefault(address, Requester())

    Answers(spool, send_to).send_undelivered()  # type: ignore[arg-type]

    assert heard["address"].messages == [DONE]
