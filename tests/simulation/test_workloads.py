"""Who asks what in virtual time, and how the worker shares its steps."""

from itertools import pairwise

import pytest

from edged.errors import ConfigError
from edged.simulation.worker import Flow, VirtualWorker, rates
from edged.simulation.workloads import Arrivals, Job, Loop, Source, sources_of

FULL = Flow(watts=5.6, decode=1.0, prefill=1.0)


def worked(*sources: Source, for_s: float, flow: Flow = FULL) -> VirtualWorker:
    worker = VirtualWorker(sources)
    while worker.now_s < for_s - 1e-9:
        worker.begin()
        worker.work(for_s - worker.now_s, flow)
    return worker


def asked(source: Source, count: int) -> list[float]:
    found = []
    for _ in range(count):
        job = source.ask()
        found.append(job.asked_s)
        source.ended(job, job.asked_s + 10)
    return found


@pytest.mark.parametrize("workload", ["voice", "mixed"])
def test_a_workload_is_the_same_for_the_same_seed(workload: str):
    first, again, other = (
        [asked(source, 20) for source in sources_of(workload, seed)] for seed in (3, 3, 4)
    )

    assert first == again
    assert first != other


def test_voices_are_60_to_120_seconds_apart():
    times = asked(Arrivals(60, 40, (60.0, 120.0)), 50)

    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert 60 <= min(gaps) < 75
    assert 105 < max(gaps) <= 120


def test_a_voice_beside_a_background_job_is_the_same_as_without():
    (alone,), (_, beside) = sources_of("voice", 5), sources_of("mixed", 5)

    assert asked(alone, 10) == asked(beside, 10)


def test_an_unknown_workload_lists_the_known():
    with pytest.raises(ConfigError, match="known are: steady, voice, mixed"):
        sources_of("silent", 0)


def test_the_next_prompt_of_a_loop_comes_when_the_last_is_answered():
    loop = Loop(15, 24)
    worker = worked(loop, for_s=12.0)  # 1 s to read; the first token with it, 23 more in 5 s

    assert worker.first_tokens_s == pytest.approx([1.0, 1.0])
    assert worker.tokens == pytest.approx(48)
    assert worker.prefill_tokens == pytest.approx(30)
    assert loop.backlog == 1


def test_pauses_leave_the_worker_idle():
    worker = worked(Loop(15, 24, pauses_s=(10.0, 10.0)), for_s=12.0)

    assert worker.tokens == pytest.approx(24)
    assert (worker.queued, worker.reading, worker.answering) == (0, 0, 0)


def test_nothing_happens_while_it_is_paused():
    worker = worked(Loop(15, 24), for_s=100.0, flow=Flow(watts=2.2, decode=0.0, prefill=0.0))

    assert (worker.tokens, worker.prefill_tokens) == (0, 0)
    assert (worker.queued, worker.reading, worker.answering) == (1, 1, 0)


@pytest.mark.parametrize(
    ("answering", "is_reading", "expected"),
    [
        (0, True, (15.0, 0.0)),
        (1, False, (0.0, 4.6)),
        (2, False, (0.0, 4.6)),  # the weights are read once for both
        (1, True, (12.0, 3.0)),  # a step of 4 + 1 tokens takes 1/3 s
    ],
)
def test_answers_share_the_steps(answering: int, is_reading: bool, expected: tuple[float, float]):
    assert rates(FULL, answering, is_reading=is_reading) == pytest.approx(expected)


def test_rests_take_their_share_of_the_time():
    half = Flow(watts=3.9, decode=1.0, prefill=1.0, duty=0.5)

    assert rates(half, 1, is_reading=True) == pytest.approx((6.0, 1.5))


def test_who_has_priority_is_read_first():
    class Once:
        backlog = 0

        def __init__(self, job: Job) -> None:
            self.jobs = [job]

        def next_s(self) -> float:
            return self.jobs[0].asked_s if self.jobs else float("inf")

        def ask(self) -> Job:
            return self.jobs.pop()

        def ended(self, job: Job, now_s: float) -> None: ...

    long = Job(0.0, unread=300, unanswered=10, is_awaited=False)
    voice = Job(2.0, unread=60, unanswered=1, priority=1)
    worker = worked(Once(long), Once(voice), for_s=30.0)

    assert worker.first_tokens_s == pytest.approx([4.0])
