"""The storm of ``benchmarks/chaos``, for a short while.

One fault of each kind that this machine can have; what it cannot have is printed.
"""

import pytest

from benchmarks.chaos.storm import Plan, Storm, storm

PLAN = Plan(prompts=60, clients=8, faults=1, seconds=15.0, seed=8, patience_s=120.0, pace=0.3)
KINDS = {
    *("worker killed", "daemon killed", "broker killed"),
    *("network cut", "network delayed", "packets lost", "disk full", "clock stepped"),
}


@pytest.fixture(scope="module")
def stormy(tmp_path_factory: pytest.TempPathFactory) -> Storm:
    folder = tmp_path_factory.mktemp("storm")
    return storm(PLAN, folder, folder)


def test_no_promise_is_broken_in_a_storm(stormy: Storm, capsys: pytest.CaptureFixture[str]):
    with capsys.disabled():
        print(  # noqa: T201 (what a passing run has to tell)
            f"\nstorm: {len(stormy.happened)} faults in {stormy.seconds:.0f} s; "
            f"{stormy.verdict.results} prompts, {stormy.verdict.executions} given to the worker; "
            f"left out: {stormy.left_out or 'nothing'}"
        )
    assert stormy.verdict.violations == []


def test_everything_that_can_go_wrong_here_went_wrong(stormy: Storm):
    """Else the other could not fail."""
    assert {each.kind for each in stormy.happened} == KINDS - stormy.left_out.keys()
