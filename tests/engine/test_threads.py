"""How many threads a step gets, on simulated machines: idle, noisy, and with a core taken away."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import pytest

from edged.engine.threads import TRIAL_STEPS, ThreadChoice

Machine = Callable[[int, float], float]
"""Seconds that a step takes with so many threads at such a time."""

# Relative decode speeds of a Pi 5, whose memory is used up by three threads (hardware.md).
PI_5 = {1: 0.1 / 0.55, 2: 0.1 / 0.88, 3: 0.1 / 0.98, 4: 0.1}
FOUR_CORES = {threads: 0.24 / threads for threads in range(1, 5)}
# Measured with the shape of Phi-3-mini (hardware.md): all to itself, and with one core taken.
TWO_CORES = {1: 0.1, 2: 0.07}
TWO_CORES_ONE_BUSY = {1: 0.11, 2: 0.256}
NOISE = pytest.mark.parametrize("noise", [0.0, 0.1])


def always(table: dict[int, float]) -> Machine:
    return lambda threads, _now_s: table[threads]


def changing(
    table: dict[int, float], busy: dict[int, float], begin_s: float, end_s: float
) -> Machine:
    return lambda threads, now_s: (busy if begin_s <= now_s < end_s else table)[threads]


@dataclass
class Step:
    kind: object
    began_s: float
    took_s: float
    threads: int
    is_trial: bool


@dataclass
class Life:
    """Steps on a machine, one after the other, with the threads that were chosen."""

    machine: Machine
    most: int
    noise: float = 0.0
    kinds: Callable[[int], int] = lambda _number: 1
    """What kind the step of that number is: a width, which takes more time as it is wider."""
    steps: list[Step] = field(default_factory=list)

    def run(self, duration_s: float) -> "Life":
        self.choice = ThreadChoice(self.most)
        luck = random.Random(7)
        now_s = 1000.0
        while now_s < 1000 + duration_s:
            kind, threads = self.kinds(len(self.steps)), self.choice.threads
            took_s = self.takes_s(kind, threads, now_s - 1000)
            took_s *= 1 + luck.uniform(-self.noise, self.noise)
            step = Step(kind, now_s - 1000, took_s, threads, self.choice.is_trying)
            self.steps.append(step)
            now_s += took_s
            self.choice.learn(kind, took_s, now_s)
        return self

    def takes_s(self, kind: int, threads: int, now_s: float) -> float:
        return self.machine(threads, now_s) * (0.6 + 0.4 * kind)

    def loss(self, threads: int, begin_s: float = 0.0, end_s: float = float("inf")) -> float:
        """How much longer the steps of a time took than all of them with ``threads``."""
        steps = [step for step in self.steps if begin_s <= step.began_s < end_s]
        least_s = sum(self.takes_s(step.kind, threads, step.began_s) for step in steps)  # type: ignore[arg-type]
        return sum(step.took_s for step in steps) / least_s - 1

    def settled(self, threads: int, since_s: float) -> float:
        """How long after ``since_s`` that number was chosen, and not only tried."""
        return next(
            step.began_s - since_s
            for step in self.steps
            if step.began_s > since_s and step.threads == threads and not step.is_trial
        )

    @property
    def chosen(self) -> set[int]:
        return {step.threads for step in self.steps if not step.is_trial}


def test_the_first_step_uses_all_threads() -> None:
    assert ThreadChoice(4).threads == 4


def test_with_one_thread_there_is_nothing_to_try() -> None:
    life = Life(always({1: 0.1}), most=1, noise=0.1).run(600)

    assert not any(step.is_trial for step in life.steps)


# An idle machine


@NOISE
@pytest.mark.parametrize(
    ("most", "table"), [(2, TWO_CORES), (4, FOUR_CORES), (4, PI_5)], ids=["two", "four", "pi 5"]
)
def test_ten_idle_minutes_lose_less_than_two_per_cent(
    most: int, table: dict[int, float], noise: float
) -> None:
    assert Life(always(table), most, noise).run(600).loss(most) < 0.02


@pytest.mark.parametrize(("most", "table"), [(2, TWO_CORES), (4, FOUR_CORES)])
def test_noise_does_not_change_the_number(most: int, table: dict[int, float]) -> None:
    assert Life(always(table), most, noise=0.1).run(600).chosen == {most}


def test_other_numbers_are_tried_more_and_more_rarely() -> None:
    life = Life(always(TWO_CORES), most=2).run(600)
    trials = [step.began_s for step in life.steps if step.is_trial][:: TRIAL_STEPS + 1]
    pauses = [after - before for before, after in pairwise(trials)]

    assert len(pauses) > 5
    assert pauses == sorted(pauses)


def test_a_trial_is_a_few_steps() -> None:
    life = Life(always(TWO_CORES), most=2, noise=0.1).run(600)
    groups = groupby(life.steps, key=lambda step: step.is_trial)
    trials = [len(list(steps)) for is_trial, steps in groups if is_trial]

    assert trials
    assert max(trials) == TRIAL_STEPS + 1


def test_a_hopeless_trial_is_shorter() -> None:
    life = Life(always({1: 0.3, 2: 0.07}), most=2).run(60)
    groups = groupby(life.steps, key=lambda step: step.is_trial)

    assert {len(list(steps)) for is_trial, steps in groups if is_trial} == {2}


@NOISE
def test_fewer_threads_are_found_where_they_are_faster(noise: float) -> None:
    """More threads than the memory feeds, as of an efficiency core that holds up the others."""
    life = Life(always({1: 0.2, 2: 0.12, 3: 0.09, 4: 0.11}), most=4, noise=noise).run(60)

    assert life.settled(3, since_s=0) < 10


# A machine that becomes busy


@NOISE
def test_a_core_that_is_taken_changes_the_number_within_ten_seconds(noise: float) -> None:
    machine = changing(TWO_CORES, TWO_CORES_ONE_BUSY, 60, 300)

    assert Life(machine, 2, noise).run(300).settled(1, since_s=60) < 10


@NOISE
def test_a_core_that_is_given_back_is_used_within_ten_seconds(noise: float) -> None:
    machine = changing(TWO_CORES, TWO_CORES_ONE_BUSY, 60, 300)

    assert Life(machine, 2, noise).run(360).settled(2, since_s=300) < 10


@NOISE
def test_a_core_that_is_taken_after_an_idle_hour_is_noticed_as_soon(noise: float) -> None:
    machine = changing(TWO_CORES, TWO_CORES_ONE_BUSY, 3600, 4000)

    assert Life(machine, 2, noise).run(3700).settled(1, since_s=3600) < 10


@NOISE
def test_while_a_core_is_taken_little_is_lost_to_trials(noise: float) -> None:
    machine = changing(TWO_CORES, TWO_CORES_ONE_BUSY, 0, 300)

    assert Life(machine, 2, noise).run(300).loss(1, begin_s=10) < 0.1


@NOISE
def test_of_four_cores_those_that_are_free_are_used(noise: float) -> None:
    """The thread that shares its core takes three times as long, and all wait for it."""
    busy = {1: 0.24, 2: 0.12, 3: 0.08, 4: 0.18}
    life = Life(changing(FOUR_CORES, busy, 60, 300), 4, noise).run(360)

    assert (life.settled(3, since_s=60) < 10, life.settled(4, since_s=300) < 10) == (True, True)


def test_several_cores_are_given_up_one_after_the_other() -> None:
    busy = {1: 0.24, 2: 0.5, 3: 0.6, 4: 0.7}
    life = Life(changing(FOUR_CORES, busy, 60, 300), 4).run(360)

    assert (life.settled(1, since_s=60) < 10, life.settled(4, since_s=300) < 10) == (True, True)


def test_a_number_that_was_just_left_is_not_the_next_to_be_tried() -> None:
    life = Life(always({1: 0.1, 2: 0.12, 3: 0.15, 4: 0.2}), most=4).run(8)
    tried = [threads for threads, _ in groupby(s.threads for s in life.steps if s.is_trial)]

    assert tried == [3, 2, 1, 2]


def test_a_machine_that_is_only_slower_keeps_its_threads() -> None:
    """Throttled by its temperature, say: every number of threads takes twice as long."""
    slow = {threads: 2 * step_s for threads, step_s in TWO_CORES.items()}
    life = Life(changing(TWO_CORES, slow, 60, 300), 2).run(360)

    assert (life.chosen, life.loss(2) < 0.02) == ({2}, True)


# Steps of several kinds

ALTERNATING = {
    "two kinds": lambda number: (1, 4)[number % 2],
    "three kinds": lambda number: 1 + number % 3,
    "spells of a kind": lambda number: 1 + number // 50 % 4,
}
KINDS = pytest.mark.parametrize("kinds", ALTERNATING.values(), ids=ALTERNATING)


@NOISE
@KINDS
def test_kinds_are_not_taken_for_one_another(kinds: Callable[[int], int], noise: float) -> None:
    life = Life(always(TWO_CORES), 2, noise, kinds).run(600)

    assert (life.chosen, life.loss(2) < 0.02) == ({2}, True)


@NOISE
@KINDS
def test_a_core_that_is_taken_is_noticed_with_several_kinds(
    kinds: Callable[[int], int], noise: float
) -> None:
    machine = changing(TWO_CORES, TWO_CORES_ONE_BUSY, 60, 200)
    life = Life(machine, 2, noise, kinds).run(300)

    assert (life.settled(1, since_s=60) < 10, life.settled(2, since_s=200) < 10) == (True, True)


def test_a_kind_that_does_not_come_again_does_not_hold_its_trial_open() -> None:
    """The width of a step with drafts, until the text repeats no more."""
    choice = ThreadChoice(2)
    now_s = 0.0
    while not choice.is_trying:
        choice.learn("wide", 0.1, now_s := now_s + 1)
    for _ in range(100):
        choice.learn("narrow", 0.1, now_s := now_s + 1)

    assert choice.threads == 2


def test_widths_that_change_with_every_step_lose_less_than_two_per_cent() -> None:
    luck = random.Random(3)
    life = Life(always(TWO_CORES), 2, kinds=lambda _number: luck.randint(1, 8)).run(600)

    assert life.loss(2) < 0.02


# Knowing what others do


def lived(
    choice: ThreadChoice,
    machine: dict[int, float],
    until_s: float,
    now_s: float = 0.0,
    **others: float,
) -> int:
    """Steps until then; how many of them were trials."""
    trials = 0
    while now_s < until_s:
        took_s = machine[choice.threads]
        trials += choice.is_trying
        now_s += took_s
        choice.learn(1, took_s, now_s, **others)
    return trials


def test_alone_on_the_machine_nothing_is_tried() -> None:
    choice = ThreadChoice(2)

    assert (lived(choice, TWO_CORES, 600, others_cores=0.1), choice.threads) == (0, 2)


def test_beside_others_fewer_threads_are_found() -> None:
    choice = ThreadChoice(2)
    lived(choice, TWO_CORES_ONE_BUSY, 10, others_cores=1.0)

    assert choice.threads == 1


def test_when_the_others_have_gone_all_threads_are_back_within_seconds() -> None:
    choice = ThreadChoice(2)
    lived(choice, TWO_CORES_ONE_BUSY, 10, others_cores=1.0)
    lived(choice, TWO_CORES, 13, now_s=10, others_cores=0.0)

    assert choice.threads == 2
