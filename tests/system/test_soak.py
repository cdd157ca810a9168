"""The soak of ``benchmarks/soak`` for a quarter of a minute: what it says of behaviour.

What is held after so short a time says nothing; it is only printed.
"""

from collections.abc import Iterator

import pytest
from node import Broker

from benchmarks.bus import daemon
from benchmarks.soak.figures import ends_by_kind, usages
from benchmarks.soak.run import SETTINGS, SLOTS, Plan, Soak, soak

MIB = 2**20
PLAN = Plan(seconds=15.0, seed=7, think_s=0.4, sample_every_s=5.0)


@pytest.fixture(scope="module")
def soaked(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    folder = tmp_path_factory.mktemp("soak")
    with daemon(folder, broker.port, "soak", **SETTINGS) as node:
        yield soak(broker.port, node, PLAN)


def test_every_prompt_has_one_terminal_message_and_ends_as_it_may(soaked: Soak):
    assert soaked.ledger.faults() == []


def test_no_slot_is_leaked(soaked: Soak):
    assert soaked.is_idle_at_end
    assert soaked.answered_at_once == SLOTS


def test_the_worker_is_the_same_process(soaked: Soak):
    assert len(soaked.worker_pids) == 1


def test_conversations_begin_from_a_cached_prefix(soaked: Soak):
    assert any(usage["cached_tokens"] for usage in usages(soaked.ledger, "conversation"))


def test_there_was_traffic_of_every_sort(soaked: Soak, capsys: pytest.CaptureFixture[str]):
    """Else the others could not fail."""
    ledger, ends = soaked.ledger, ends_by_kind(soaked.ledger)
    held = ", ".join(
        f"{name} {process.resident_bytes / MIB:.1f} MiB"
        for name, process in soaked.samples[-1].processes.items()
    )
    with capsys.disabled():
        print(f"\nsoak: {ledger.asked} prompts in {PLAN.seconds:g} s; {held}")  # noqa: T201
    assert set(ledger.did) >= {"bursts", "cancels", "deadlines", "duplicates", "vanished"}
    assert set(ends) >= {"asked twice", "conversation", "invalid", "long", "long answer", "short"}
    assert set(ends) >= {"stop sequence", "too long", "JSON object", "JSON schema"}
    assert ledger.unnamed_asked
