"""Scarce memory: what holds for every sequence of readings."""

import copy
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.messages import MemoryReading
from edged.throttle.memory import MemoryGovernor, Step, Usage
from edged.throttle.watermarks import MIB

PERIOD_S = 0.5
BYTES = st.integers(0, 4000 * MIB)
PLENTY_BYTES = 8000 * MIB
KEEP_ALIVE_S = st.none() | st.sampled_from([0.0, 5.0, 60.0])

READINGS = st.builds(
    MemoryReading,
    available_bytes=BYTES,
    total_bytes=st.just(16_000 * MIB),
    limited_by=st.sampled_from(["MemAvailable", "memory.max of /edged"]),
    stalled_share=st.none() | st.floats(0, 1),
    limit_events=st.integers(0, 5),
)
USAGES = st.builds(
    Usage,
    is_loading=st.sampled_from([False, False, False, True]),
    is_loaded=st.sampled_from([True, True, True, False]),
    active=st.integers(0, 2),
    queued=st.integers(0, 2),
    idle_s=st.floats(0, 1000),
    worker_bytes=st.none() | BYTES,
    ctx=st.none() | st.sampled_from([256, 512, 4096]),
    needed_bytes=st.none() | BYTES,
)
MOMENTS = st.tuples(st.none() | READINGS, USAGES, st.sampled_from([0.0, 0.05, 0.5, 0.5, 3.0, 20.0]))
HISTORIES = st.lists(MOMENTS, max_size=40)


def lived(
    history: list[tuple[MemoryReading | None, Usage, float]], keep_alive_s: float | None
) -> tuple[MemoryGovernor, float]:
    governor, now_s = MemoryGovernor(keep_alive_s=keep_alive_s), 0.0
    for reading, usage, took_s in history:
        now_s += took_s
        governor.decide(reading, usage, now_s)
    return governor, now_s


@given(HISTORIES, KEEP_ALIVE_S)
def test_every_sequence_gets_decisions_whose_parts_agree(
    history: list[tuple[MemoryReading | None, Usage, float]], keep_alive_s: float | None
) -> None:
    governor, now_s = MemoryGovernor(keep_alive_s=keep_alive_s), 0.0
    for reading, usage, took_s in history:
        now_s += took_s
        decision = governor.decide(reading, usage, now_s)
        assert 0.0 <= decision.since_s <= now_s
        assert (decision.width is None) == (decision.step < Step.ADMIT_FEWER)
        assert (decision.level == "paused") == (decision.step is Step.END_WORKER)
        assert decision.level == "nominal" or decision.reason


@given(HISTORIES, MOMENTS, KEEP_ALIVE_S)
def test_no_step_is_taken_while_a_model_loads(
    history: list[tuple[MemoryReading | None, Usage, float]],
    moment: tuple[MemoryReading | None, Usage, float],
    keep_alive_s: float | None,
) -> None:
    governor, now_s = lived(history, keep_alive_s)
    reading, usage, took_s = moment
    before = copy.deepcopy(governor).decide(None, replace(usage, is_loading=True), now_s).step
    after = governor.decide(reading, replace(usage, is_loading=True), now_s + took_s).step

    assert after == before


@given(HISTORIES, READINGS, USAGES, BYTES, KEEP_ALIVE_S)
def test_less_memory_never_means_a_smaller_step(
    history: list[tuple[MemoryReading | None, Usage, float]],
    reading: MemoryReading,
    usage: Usage,
    less_bytes: int,
    keep_alive_s: float | None,
) -> None:
    governor, now_s = lived(history, keep_alive_s)
    twin = copy.deepcopy(governor)
    less = replace(reading, available_bytes=max(0, reading.available_bytes - less_bytes))
    with_more = governor.decide(reading, usage, now_s + PERIOD_S)
    with_less = twin.decide(less, usage, now_s + PERIOD_S)

    assert with_less.step >= with_more.step


@given(HISTORIES, USAGES)
@settings(deadline=None)
def test_with_plenty_for_three_minutes_all_is_well(
    history: list[tuple[MemoryReading | None, Usage, float]], usage: Usage
) -> None:
    governor, now_s = lived(history, None)
    plenty = MemoryReading(PLENTY_BYTES, 16_000 * MIB, "MemAvailable", stalled_share=0.0)
    usage = replace(usage, is_loading=False)
    for _ in range(round(180 / PERIOD_S)):
        now_s += PERIOD_S
        decision = governor.decide(plenty, usage, now_s)

    assert (decision.step, decision.level, decision.reason) == (Step.NONE, "nominal", "")


@given(
    plenty_mib=st.integers(1000, 64_000),
    falls_s=st.floats(1.5, 300),
    begins_s=st.floats(0, PERIOD_S),
    active=st.integers(0, 1),
    noise=st.lists(st.integers(-3, 3), min_size=1, max_size=10),
)
@settings(deadline=None)
def test_however_memory_falls_the_worker_ends_before_there_is_none(
    plenty_mib: int, falls_s: float, begins_s: float, active: int, noise: list[int]
) -> None:
    governor = MemoryGovernor()
    usage = Usage(
        is_loading=False,
        is_loaded=True,
        active=active,
        queued=0,
        idle_s=60.0,
        worker_bytes=3000 * MIB,
        ctx=4096,
        needed_bytes=3000 * MIB,
    )
    for n in range(round((falls_s + 2) / PERIOD_S)):
        share = 1 - max(0.0, n * PERIOD_S - begins_s) / falls_s
        left_mib = plenty_mib * share + (noise[n % len(noise)] if n else 0)
        if left_mib <= 0:
            break
        reading = MemoryReading(int(left_mib * MIB), plenty_mib * MIB, "MemAvailable")
        step = governor.decide(reading, usage, n * PERIOD_S).step
        if step is Step.END_WORKER:
            return
    raise AssertionError("the worker was still there when the memory was gone")
