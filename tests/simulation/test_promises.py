"""What the governor promises, in a few cells of ``benchmarks.throttling``: its short version."""

import pytest

from benchmarks.throttling.cells import Cell
from benchmarks.throttling.criteria import GOALS, ROBUST_GOALS, SUBJECT, judge
from edged.simulation.run import simulate
from edged.simulation.scenario import Scenario

CELLS = (
    # The board that is assumed: no second above the limit, and so many tokens nevertheless.
    ("assumed", "bare", "22:40@15", "steady", 30, ("oracle", "pi")),
    ("assumed", "closed", "22:40@15", "voice", 30, ("oracle", "duty")),
    # Boards of another structure: at most 30 s above, none above the hard limit.
    ("worse", "closed", "35", "steady", 60, ("oracle",)),
    ("worse", "closed", "35", "mixed", 30, ("oracle",)),
    ("better", "closed", "22:40@15", "steady", 30, ("oracle",)),
)


@pytest.mark.parametrize(
    ("structure", "case", "ambient", "workload", "minutes", "rivals"), CELLS, ids=str
)
def test_it_keeps_its_promises(
    structure: str, case: str, ambient: str, workload: str, minutes: int, rivals: tuple[str, ...]
) -> None:
    scenario = Scenario(
        case=case, ambient=ambient, workload=workload, minutes=minutes, structure=structure
    )
    results = {Cell(scenario, policy): simulate(scenario, policy) for policy in (SUBJECT, *rivals)}

    goals = GOALS if structure == "assumed" else ROBUST_GOALS
    assert judge(results, goals) == {Cell(scenario, SUBJECT): []}
