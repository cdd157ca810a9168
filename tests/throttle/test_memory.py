"""Scarce memory: what is given back, in which order, and how it is taken again."""

from dataclasses import replace

import pytest

from edged.messages import Level, MemoryReading
from edged.throttle.memory import MemoryDecision, MemoryGovernor, Step, Usage
from edged.throttle.watermarks import MIB

TOTAL_MIB = 8000
"""Of which the marks are 480, 403, 326, 250, 173 and 96 MiB."""
PLENTY_MIB = 2000
WORKER_MIB = 3000
ROOM_MIB = WORKER_MIB + 480
PERIOD_S = 0.5
GENTLY_MIB_PER_S = 15
"""Slower than one mark in two seconds."""

READING = MemoryReading(
    available_bytes=PLENTY_MIB * MIB, total_bytes=TOTAL_MIB * MIB, limited_by="MemAvailable"
)
IDLE = Usage(
    is_loading=False,
    is_loaded=True,
    active=0,
    queued=0,
    idle_s=60.0,
    worker_bytes=WORKER_MIB * MIB,
    ctx=4096,
    needed_bytes=WORKER_MIB * MIB,
)
BUSY = replace(IDLE, active=1, idle_s=0.0)
LOADING = replace(IDLE, is_loading=True, is_loaded=False, worker_bytes=None, ctx=None)
UNLOADED = replace(IDLE, is_loaded=False, worker_bytes=None, ctx=None)
WAITED_FOR = replace(UNLOADED, queued=1, idle_s=0.0)


class Run:
    """A governor and its clock, after a while with plenty; ``seen`` is what it decided since."""

    def __init__(self, usage: Usage = IDLE, keep_alive_s: float | None = None) -> None:
        self.governor = MemoryGovernor(keep_alive_s=keep_alive_s)
        self.now_s = 100.0
        self.mib: float = PLENTY_MIB
        self.seen: list[MemoryDecision] = []
        self.see(PLENTY_MIB, usage, for_s=30)
        self.seen.clear()

    def see(
        self, mib: float | None, usage: Usage = IDLE, for_s: float = PERIOD_S, **changes: object
    ) -> MemoryDecision:
        """The same reading for a while; ``None`` is none at all."""
        for _ in range(round(for_s / PERIOD_S)):
            reading = None
            if mib is not None:
                self.mib = mib
                reading = replace(READING, available_bytes=int(mib * MIB), **changes)  # type: ignore[arg-type]
            self.seen.append(self.governor.decide(reading, usage, self.now_s))
            self.now_s += PERIOD_S
        return self.seen[-1]

    def sink(
        self, to_mib: float, usage: Usage = IDLE, mib_per_s: float = GENTLY_MIB_PER_S
    ) -> MemoryDecision:
        """At a constant rate."""
        while self.mib > to_mib:
            self.see(max(to_mib, self.mib - mib_per_s * PERIOD_S), usage)
        return self.seen[-1]

    @property
    def steps(self) -> list[int]:
        """Those that were seen, each once in a row."""
        steps = [int(each.step) for each in self.seen]
        return [step for n, step in enumerate(steps) if n == 0 or step != steps[n - 1]]


def ended() -> Run:
    """The worker was ended in the middle of an answer, and its memory came back."""
    run = Run(BUSY)
    run.sink(90, BUSY)
    run.see(WORKER_MIB + 90, WAITED_FOR)
    run.seen.clear()
    return run


# Downwards


def test_with_plenty_all_is_well_and_nothing_is_said() -> None:
    decision = Run().see(PLENTY_MIB, for_s=10)

    assert decision.step is Step.NONE
    assert (decision.level, decision.reason) == ("nominal", "")
    assert (decision.width, decision.max_prompt_tokens) == (None, None)


def test_steps_are_taken_in_order_as_memory_goes() -> None:
    run = Run()
    run.sink(20)

    assert run.steps == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("mib", "level"),
    [
        (500, "nominal"),
        (450, "trimmed"),
        (300, "trimmed"),
        (200, "throttled"),
        (150, "throttled"),
        (90, "paused"),
    ],
)
def test_each_step_has_its_level(mib: int, level: Level) -> None:
    assert Run().sink(mib).level == level


def test_below_the_second_mark_one_prompt_is_answered_at_a_time() -> None:
    decision = Run().sink(390)

    assert (decision.width, decision.max_prompt_tokens) == (1, None)


def test_below_the_third_mark_prompts_longer_than_a_quarter_of_the_context_are_refused() -> None:
    decision = Run().sink(320)

    assert (decision.width, decision.max_prompt_tokens) == (1, 1024)


def test_who_is_being_answered_is_not_interrupted_for_a_shorter_context() -> None:
    run = Run(BUSY)

    assert run.sink(140, BUSY).step is Step.REFUSE_LONG


def test_the_context_shrinks_as_soon_as_nobody_is_being_answered() -> None:
    run = Run(BUSY)
    run.sink(200, BUSY)

    assert run.see(200, IDLE).step is Step.SHRINK_CONTEXT


def test_prompts_that_wait_do_not_keep_the_context_from_shrinking() -> None:
    run = Run(BUSY)
    run.sink(200, BUSY)

    assert run.see(200, replace(IDLE, queued=3, idle_s=0.0)).step is Step.SHRINK_CONTEXT


def test_a_short_context_does_not_shrink() -> None:
    usage = replace(IDLE, ctx=512)
    run = Run(usage)

    assert run.sink(200, usage).step is Step.REFUSE_LONG


def test_the_context_does_not_shrink_twice_in_ten_minutes() -> None:
    run = Run()
    run.sink(200)
    run.see(800, for_s=60)
    run.seen.clear()
    run.sink(200)
    run.see(200, for_s=60)

    assert run.steps == [0, 1, 2, 3]


def test_after_ten_minutes_the_context_may_shrink_again() -> None:
    run = Run()
    run.sink(200)
    run.see(800, for_s=600)

    assert run.sink(200).step is Step.SHRINK_CONTEXT


def test_the_model_stays_while_somebody_waits_for_it() -> None:
    run = Run()
    run.sink(200)

    assert run.sink(140, replace(IDLE, queued=1)).step is Step.SHRINK_CONTEXT


def test_the_model_stays_in_the_moment_between_two_prompts() -> None:
    run = Run()
    run.sink(200)
    run.sink(140, BUSY)

    assert run.see(140, replace(IDLE, idle_s=0.1)).step is Step.SHRINK_CONTEXT


def test_between_two_steps_there_is_time_for_the_first_to_show() -> None:
    run = Run(BUSY)
    run.sink(140, BUSY)
    run.seen.clear()
    run.see(140, IDLE, for_s=3)

    assert [each.step for each in run.seen] == [4, 4, 4, 4, 5, 5]


def test_below_the_last_mark_the_worker_ends_whatever_it_does() -> None:
    assert Run(BUSY).sink(90, BUSY).step is Step.END_WORKER


def test_a_neighbour_that_takes_a_gigabyte_a_second_ends_the_worker_before_it_has_all() -> None:
    run = Run(BUSY)
    run.sink(1, BUSY, mib_per_s=1000)

    ended_at = [each.step for each in run.seen].index(Step.END_WORKER)
    assert PLENTY_MIB - (ended_at + 1) * 500 >= 1000


def test_a_neighbour_that_takes_much_at_once_and_leaves_much_ends_nothing() -> None:
    run = Run(BUSY)

    assert run.see(PLENTY_MIB - 500, BUSY, for_s=30).step is Step.NONE


def test_a_fast_fall_is_met_at_once_by_what_can_be_taken_back_at_once() -> None:
    run = Run()
    run.sink(600)

    assert run.see(600).step is Step.NONE
    assert run.see(470).step is Step.REFUSE_LONG


# Upwards


def test_a_step_is_not_taken_back_just_above_its_mark() -> None:
    run = Run()
    run.sink(390)

    assert run.see(1.4 * 403, for_s=60).step is Step.ADMIT_FEWER


def test_steps_are_taken_back_one_in_ten_seconds() -> None:
    run = Run()
    run.sink(320)
    run.seen.clear()
    run.see(PLENTY_MIB, for_s=35)

    assert run.steps == [3, 2, 1, 0]
    assert [each.step for each in run.seen].index(Step.FORGET_PREFIXES) == 41


def test_when_it_gets_worse_meanwhile_the_ten_seconds_begin_anew() -> None:
    run = Run()
    run.sink(450)
    for _ in range(10):
        run.see(800, for_s=8)
        run.see(700)

    assert run.see(800).step is Step.FORGET_PREFIXES


def test_a_model_unloaded_for_want_of_memory_comes_back_when_there_is_room() -> None:
    run = ended()

    assert run.see(ROOM_MIB, WAITED_FOR, for_s=11).step is Step.ADMIT_FEWER


def test_a_model_unloaded_for_want_of_memory_stays_away_as_long_as_room_is_missing() -> None:
    run = ended()

    assert run.see(ROOM_MIB - 1, WAITED_FOR, for_s=600).step is Step.END_WORKER


def test_prompts_that_were_interrupted_are_not_too_long_when_they_run_again() -> None:
    run = ended()

    assert run.see(ROOM_MIB, WAITED_FOR, for_s=11).max_prompt_tokens is None


def test_all_is_well_again_when_the_neighbour_has_gone() -> None:
    run = ended()
    run.see(ROOM_MIB + 1000, WAITED_FOR, for_s=11)
    run.see(PLENTY_MIB, LOADING, for_s=30)
    run.see(PLENTY_MIB, BUSY, for_s=25)

    assert run.steps == [6, 2, 1, 0]
    assert run.seen[-1].level == "nominal"


def test_who_asks_for_a_model_that_was_unloaded_while_idle_gets_it_if_there_is_room() -> None:
    run = Run()
    run.sink(150)
    run.see(150, for_s=3)

    assert run.see(ROOM_MIB, WAITED_FOR).step is Step.ADMIT_FEWER


def test_who_asks_for_it_waits_if_there_is_none() -> None:
    run = Run()
    run.sink(150)
    run.see(150, for_s=3)
    run.see(ROOM_MIB - 1, UNLOADED, for_s=30)
    decision = run.see(ROOM_MIB - 1, WAITED_FOR)

    assert (decision.step, decision.level) == (Step.END_WORKER, "paused")


def test_a_model_unloaded_while_idle_comes_back_without_being_asked_for() -> None:
    run = Run()
    run.sink(150)
    run.see(150, for_s=3)

    assert run.see(ROOM_MIB, UNLOADED, for_s=11).step is Step.ADMIT_FEWER


# Loads


def test_while_a_model_loads_readings_say_nothing() -> None:
    run = Run()

    assert run.sink(1, LOADING, mib_per_s=500).step is Step.NONE


def test_while_a_model_loads_nothing_is_taken_back() -> None:
    run = Run()
    run.sink(200)

    assert run.see(PLENTY_MIB, LOADING, for_s=60).step is Step.SHRINK_CONTEXT


def test_what_was_better_before_a_load_does_not_count_after_it() -> None:
    run = Run()
    run.sink(390)
    run.see(PLENTY_MIB, for_s=8)
    run.see(PLENTY_MIB, LOADING, for_s=60)

    assert run.see(PLENTY_MIB).step is Step.ADMIT_FEWER


def test_a_load_that_leaves_little_is_served_as_any_other() -> None:
    run = Run()
    run.see(3000, LOADING)
    run.see(80, BUSY)

    assert run.see(70, BUSY, for_s=30).level == "nominal"


def test_where_a_load_left_little_a_neighbour_is_noticed_all_the_same() -> None:
    run = Run()
    run.see(3000, LOADING)
    run.see(200, BUSY)

    assert run.sink(70, BUSY, mib_per_s=1).level == "trimmed"


def test_a_load_too_short_to_be_seen_is_no_neighbour() -> None:
    run = Run()
    run.see(600, UNLOADED)

    assert run.see(150, BUSY, for_s=30).step is Step.NONE


def test_without_a_worker_there_is_nothing_to_give_back() -> None:
    run = Run()
    run.see(2000, LOADING)

    assert run.sink(10, UNLOADED).step is Step.NONE


# No reading


def test_a_machine_that_does_not_tell_is_left_alone() -> None:
    decision = MemoryGovernor().decide(None, IDLE, 5.0)

    assert (decision.step, decision.level, decision.reason) == (Step.NONE, "nominal", "")


def test_a_reading_that_is_missing_changes_nothing() -> None:
    run = ended()

    assert run.see(None, WAITED_FOR, for_s=60).step is Step.END_WORKER


# Without prompts


def out_of_use(idle_s: float) -> Usage:
    return replace(IDLE, idle_s=idle_s)


def test_the_model_stays_for_ever_unless_it_was_told_otherwise() -> None:
    assert Run().see(PLENTY_MIB, out_of_use(1e6), for_s=60).step is Step.NONE


def test_the_model_is_unloaded_when_nobody_has_asked_for_so_long() -> None:
    run = Run(BUSY, keep_alive_s=20)

    assert run.see(PLENTY_MIB, out_of_use(19.5)).step is Step.NONE
    assert run.see(PLENTY_MIB, out_of_use(20)).step is Step.UNLOAD_IDLE


def test_unloading_it_for_that_is_nothing_bad() -> None:
    decision = Run(BUSY, keep_alive_s=20).see(PLENTY_MIB, out_of_use(20))

    assert decision.level == "nominal"
    assert "no prompt came for 20 s" in decision.reason


def test_with_zero_the_model_is_unloaded_as_soon_as_nobody_is_answered_or_waits() -> None:
    run = Run(BUSY, keep_alive_s=0)

    assert run.see(PLENTY_MIB, replace(BUSY, active=0, queued=1)).step is Step.NONE
    assert run.see(PLENTY_MIB, out_of_use(0)).step is Step.UNLOAD_IDLE


def test_the_next_prompt_loads_it_again_at_once() -> None:
    run = Run(BUSY, keep_alive_s=20)
    run.see(PLENTY_MIB, out_of_use(20))
    run.see(PLENTY_MIB + WORKER_MIB, UNLOADED, for_s=600)
    decision = run.see(PLENTY_MIB + WORKER_MIB, WAITED_FOR)

    assert (decision.step, decision.reason) == (Step.NONE, "")


def test_the_next_prompt_waits_if_the_memory_was_taken_meanwhile() -> None:
    run = Run(BUSY, keep_alive_s=20)
    run.see(PLENTY_MIB, out_of_use(20))
    run.see(1000, UNLOADED, for_s=600)

    assert run.see(1000, WAITED_FOR).level == "paused"


def test_a_model_that_was_just_loaded_has_not_been_out_of_use() -> None:
    run = Run(BUSY, keep_alive_s=20)
    run.see(PLENTY_MIB, replace(LOADING, idle_s=300), for_s=60)

    assert run.see(PLENTY_MIB, out_of_use(360), for_s=20).step is Step.NONE
    assert run.see(PLENTY_MIB, out_of_use(380), for_s=1).step is Step.UNLOAD_IDLE


def test_a_model_that_does_not_fit_is_not_unloaded_for_want_of_prompts() -> None:
    run = Run(BUSY, keep_alive_s=20)
    run.see(PLENTY_MIB, LOADING)

    assert run.see(PLENTY_MIB, replace(UNLOADED, idle_s=60)).step is Step.NONE


def test_a_model_that_nobody_asks_for_does_not_come_back_when_memory_does() -> None:
    run = Run(BUSY, keep_alive_s=300)
    run.sink(150, out_of_use(60))
    run.see(150, out_of_use(60), for_s=3)
    run.see(150, replace(UNLOADED, idle_s=60), for_s=300)
    decision = run.see(ROOM_MIB, replace(UNLOADED, idle_s=400), for_s=15)

    assert (decision.step, decision.level) == (Step.UNLOAD_IDLE, "nominal")


# What is said


def test_the_reason_names_what_is_left_who_says_so_and_what_follows() -> None:
    reason = Run().sink(320).reason

    assert "MiB of memory were left (MemAvailable)" in reason
    assert "prompts of more than 1024 tokens are refused" in reason


def test_the_reason_of_an_end_says_what_prompts_wait_for() -> None:
    assert "until 3,480 MiB are available" in Run(BUSY).sink(90, BUSY).reason


def test_the_reason_of_a_step_that_is_what_remains_says_that_it_gets_better() -> None:
    run = Run()
    run.sink(390)
    decision = run.see(PLENTY_MIB, for_s=11)

    assert decision.step is Step.FORGET_PREFIXES
    assert "more is coming back" in decision.reason


def test_reason_and_beginning_stay_as_long_as_the_step_does() -> None:
    run = Run()
    run.sink(340)
    first = next(each for each in run.seen if each.step is Step.ADMIT_FEWER)

    assert (run.seen[-1].step, run.seen[-1].reason) == (first.step, first.reason)
    assert run.seen[-1].since_s == first.since_s


def test_a_step_begins_when_it_is_taken() -> None:
    run = Run()
    decision = run.sink(479)

    assert decision.since_s == run.now_s - PERIOD_S
