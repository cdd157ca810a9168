"""In which order sides are asked, and what is between."""

import os
from collections.abc import Mapping, Sequence

import pytest

from edged.bench import busy
from edged.bench import rounds as rounds_module
from edged.bench.figures import Answer, Arrival
from edged.bench.rounds import Pair, Rounds, Work


class Side:
    """A side that only remembers what was asked of it."""

    facts: Mapping[str, object] = {}
    pid = os.getpid()

    def __init__(self, name: str, log: list[str], *, counts: bool = True) -> None:
        self.name = name
        self.log = log
        self.counts = counts
        self.asked: list[tuple[list[str], int]] = []

    def start(self) -> None:
        self.log.append(f"{self.name} starts")

    def stop(self) -> None:
        self.log.append(f"{self.name} stops")

    def ask(self, prompts: Sequence[str], max_tokens: int) -> list[Answer]:
        self.log.append(f"{self.name} answers {max_tokens}")
        self.asked.append((list(prompts), max_tokens))
        tokens = 40 if self.counts else 0
        return [Answer(0.0, (Arrival(1.0, 1),), 2.0, tokens, max_tokens) for _ in prompts]


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody needs time to adapt, and a machine of one core will do."""
    monkeypatch.setattr(rounds_module, "SETTLE_S", 0.0)
    monkeypatch.setattr(busy, "core_to_keep_busy", lambda: min(os.sched_getaffinity(0)))


def run(
    work: Work, *, both_fit: bool = True, has_peer: bool = True, counts: bool = True
) -> tuple[list[Pair], list[str], Side, Side, list[str]]:
    log: list[str] = []
    told: list[str] = []
    subject, peer = Side("edged", log), Side("peer", log, counts=counts)
    rounds = Rounds(
        subject, peer if has_peer else None, work, both_fit=both_fit, progress=told.append
    )
    return rounds.run(), log, subject, peer, told


def test_sides_take_turns_and_stop_at_the_end():
    pairs, log, *_ = run(Work(clients=2, prompt_tokens=40, tokens=5, rounds=3))

    assert len(pairs) == 3
    assert log[:2] == ["edged starts", "peer starts"]
    assert log[-8:] == [*("edged answers 5", "peer answers 5") * 3, "peer stops", "edged stops"]


def test_both_sides_of_a_pair_are_asked_the_same_and_nobody_ever_again():
    _, _, subject, peer, _ = run(Work(clients=2, prompt_tokens=40, tokens=5, rounds=3))

    assert [texts for texts, _ in subject.asked[-3:]] == [texts for texts, _ in peer.asked[-3:]]
    everything = [text for texts, _ in subject.asked for text in texts]
    assert len(set(everything)) == len(everything)


def test_where_both_do_not_fit_each_is_loaded_and_warmed_for_its_turn():
    _, log, *_ = run(Work(clients=1, prompt_tokens=40, tokens=5, rounds=1), both_fit=False)

    pair = log[log.index("edged answers 5", 3) :]
    assert pair == [
        *("edged answers 5", "edged stops"),
        *("peer starts", "peer answers 2", "peer answers 5", "peer stops"),
        *("edged starts", "edged answers 2", "peer stops", "edged stops"),
    ]


def test_a_server_that_does_not_count_has_read_what_the_subject_has():
    pairs, *_ = run(Work(clients=1, prompt_tokens=40, tokens=5, rounds=1), counts=False)

    assert pairs[0].peer is not None
    assert pairs[0].peer[0].prompt_tokens == 40


@pytest.mark.parametrize("has_peer", [True, False])
@pytest.mark.parametrize("contention", [True, False])
def test_progress_is_told_of_every_step(has_peer: bool, contention: bool, in_no_time: None):
    work = Work(clients=1, prompt_tokens=40, tokens=5, rounds=2, contention=contention)

    *_, told = run(work, has_peer=has_peer)

    assert len(told) == work.steps(has_peer=has_peer)


def test_with_contention_every_second_pair_is_beside_a_busy_core(in_no_time: None):
    pairs, *_ = run(Work(clients=1, prompt_tokens=40, tokens=5, rounds=2, contention=True))

    assert [pair.is_busy for pair in pairs] == [False, True, False, True]
