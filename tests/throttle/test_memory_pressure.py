"""What a reading of the memory means."""

from dataclasses import replace

import pytest

from edged.messages import MemoryReading
from edged.throttle.memory_pressure import Gauge, Pressure, Step, Usage, told_of
from edged.throttle.watermarks import MIB

READING = MemoryReading(
    available_bytes=2000 * MIB, total_bytes=8000 * MIB, limited_by="MemAvailable"
)
"""The marks are 480, 403, 326, 250, 173 and 96 MiB."""
USAGE = Usage(
    is_loading=False,
    is_loaded=True,
    active=0,
    queued=0,
    idle_s=60.0,
    worker_bytes=2800 * MIB,
    ctx=4096,
    needed_bytes=3000 * MIB,
)


@pytest.fixture
def gauge() -> Gauge:
    """Of a worker that has been there for a minute, and left 2000 MiB."""
    gauge = Gauge()
    gauge.note_worker(USAGE, 0.0)
    gauge.weigh(READING, USAGE, 60.0, is_kept=True)
    return gauge


def weigh(gauge: Gauge, mib: int, now_s: float = 160.0, **changes: object) -> Pressure:
    reading = replace(READING, available_bytes=mib * MIB, **changes)  # type: ignore[arg-type]
    return gauge.weigh(reading, USAGE, now_s, is_kept=True)


def test_plenty_calls_for_nothing(gauge: Gauge) -> None:
    assert weigh(gauge, 1900).called is Step.NONE


def test_less_than_a_mark_calls_for_its_step(gauge: Gauge) -> None:
    assert weigh(gauge, 300).called is Step.REFUSE_LONG


def test_waiting_for_memory_calls_only_for_forgetting_where_there_is_enough(gauge: Gauge) -> None:
    assert weigh(gauge, 1900, stalled_share=0.9).called is Step.FORGET_PREFIXES


def test_waiting_for_memory_calls_for_a_step_more_where_there_is_little(gauge: Gauge) -> None:
    assert weigh(gauge, 300, stalled_share=0.2).called is Step.SHRINK_CONTEXT


def test_waiting_for_memory_does_not_by_itself_end_a_worker_that_answers(gauge: Gauge) -> None:
    assert weigh(gauge, 120, stalled_share=1.0).called is Step.UNLOAD_IDLE


def test_waiting_for_memory_takes_nothing_from_what_the_last_mark_calls_for(gauge: Gauge) -> None:
    assert weigh(gauge, 90, stalled_share=1.0).called is Step.END_WORKER


def test_a_little_waiting_is_nothing(gauge: Gauge) -> None:
    assert weigh(gauge, 300, stalled_share=0.05).called is Step.REFUSE_LONG


def test_what_the_kernel_tells_is_waiting_for_memory(gauge: Gauge) -> None:
    told = told_of(replace(READING, available_bytes=300 * MIB, stalled_share=0.01))
    assert told is not None

    assert gauge.weigh(told, USAGE, 160.0, is_kept=True).called is Step.SHRINK_CONTEXT


def test_what_the_kernel_tells_makes_no_waiting_less(gauge: Gauge) -> None:
    told = told_of(replace(READING, stalled_share=0.5))

    assert told is not None
    assert told.stalled_share == 0.5


def test_without_a_reading_there_is_nothing_to_tell_of() -> None:
    assert told_of(None) is None


def test_what_waits_soon_after_a_load_waits_for_the_load() -> None:
    gauge = Gauge()
    gauge.note_worker(USAGE, 0.0)

    assert weigh(gauge, 1900, now_s=10.0, stalled_share=0.9).called is Step.NONE


def test_meeting_a_groups_limit_is_nothing_where_there_is_enough(gauge: Gauge) -> None:
    assert weigh(gauge, 1900, limit_events=50).called is Step.NONE


def test_meeting_a_groups_limit_calls_for_a_step_more_where_there_is_little(gauge: Gauge) -> None:
    assert weigh(gauge, 600, limit_events=50).called is Step.FORGET_PREFIXES


def test_having_met_the_limit_before_is_nothing(gauge: Gauge) -> None:
    weigh(gauge, 1900, limit_events=50)

    assert weigh(gauge, 600, now_s=260.0, limit_events=50).called is Step.NONE


def test_having_met_the_limit_in_loading_is_nothing(gauge: Gauge) -> None:
    gauge.await_load(replace(READING, limit_events=50))

    assert weigh(gauge, 40, limit_events=50).called is Step.NONE


def test_meeting_it_since_the_load_is_something(gauge: Gauge) -> None:
    gauge.await_load(replace(READING, limit_events=50))

    assert weigh(gauge, 40, limit_events=51).called is Step.FORGET_PREFIXES


def test_a_load_that_left_little_is_no_pressure() -> None:
    gauge = Gauge()
    gauge.note_worker(USAGE, 0.0)

    assert weigh(gauge, 100).called is Step.NONE


def test_what_was_free_once_is_usual(gauge: Gauge) -> None:
    assert weigh(gauge, 100).called is Step.UNLOAD_IDLE


def test_what_was_usual_with_the_worker_before_is_not_with_the_next(gauge: Gauge) -> None:
    gauge.await_load(None)

    assert weigh(gauge, 100).called is Step.NONE


def test_room_is_what_the_worker_held_and_the_first_mark(gauge: Gauge) -> None:
    assert weigh(gauge, 1900).room_bytes == (2800 + 480) * MIB


def test_room_is_what_the_worker_held_before_some_of_it_went_to_swap(gauge: Gauge) -> None:
    gauge.note_worker(replace(USAGE, worker_bytes=1000 * MIB), 90.0)

    assert weigh(gauge, 1900).room_bytes == (2800 + 480) * MIB


def test_what_a_worker_held_says_nothing_of_the_next(gauge: Gauge) -> None:
    gauge.await_load(None)

    assert weigh(gauge, 1900).room_bytes == (3000 + 480) * MIB


def test_what_is_available_without_a_worker_is_not_usual_with_one() -> None:
    gauge = Gauge()
    gauge.note_worker(USAGE, 0.0)
    weigh(gauge, 200)
    pressure = gauge.weigh(READING, USAGE, 200.0, is_kept=False)

    assert pressure.marks.low_bytes == 100 * MIB


def test_before_the_first_worker_room_is_what_is_planned_and_the_first_mark() -> None:
    usage = replace(USAGE, is_loaded=False, worker_bytes=None)
    pressure = Gauge().weigh(READING, usage, 0.0, is_kept=False)

    assert pressure.room_bytes == (3000 + 480) * MIB


def test_a_step_is_over_half_a_mark_above_it(gauge: Gauge) -> None:
    mark_mib = 480

    assert weigh(gauge, int(1.5 * mark_mib)).is_over(Step.FORGET_PREFIXES)
    assert not weigh(gauge, int(1.5 * mark_mib) - 1).is_over(Step.FORGET_PREFIXES)


def test_no_step_is_over_while_a_group_comes_up_against_its_limit(gauge: Gauge) -> None:
    assert not weigh(gauge, 600, limit_events=50).is_over(Step.REFUSE_LONG)


def test_no_step_is_over_while_work_waits_for_memory(gauge: Gauge) -> None:
    assert not weigh(gauge, 1900, stalled_share=0.06).is_over(Step.FORGET_PREFIXES)
