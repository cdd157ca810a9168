"""What is simulated: every combination, in the order of the tables."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from edged.simulation.policies import POLICIES
from edged.simulation.scenario import Scenario
from edged.simulation.workloads import WORKLOADS

CASES = ("bare", "closed", "case", "cooler")
AMBIENTS = ("22", "35", "22:40@30")
ROBUST_POLICIES = ("governor", "none", "oracle")
ROBUST_STRUCTURES = ("worse", "better")


@dataclass(frozen=True)
class Cell:
    """A policy in a scenario."""

    scenario: Scenario
    policy: str

    @property
    def place(self) -> str:
        """Where, without the policy."""
        scenario = self.scenario
        structure = "" if scenario.structure == "assumed" else f"{scenario.structure} "
        return f"{structure}{scenario.case} {scenario.ambient} {scenario.workload}"

    @property
    def name(self) -> str:
        """As ``--only`` has it."""
        return f"{self.place} {self.policy}"

    def of_policy(self, policy: str) -> "Cell":
        """The same with another policy."""
        return replace(self, policy=policy)


def cells(minutes: float, *, has_clock: bool) -> Iterator[Cell]:
    """Every policy on the board that the governor assumes."""
    for workload, case, ambient, policy in product(WORKLOADS, CASES, AMBIENTS, POLICIES):
        scenario = Scenario(
            case=case, ambient=ambient, workload=workload, minutes=minutes, has_clock=has_clock
        )
        yield Cell(scenario, policy)


def robust_cells(minutes: float, *, has_clock: bool) -> Iterator[Cell]:
    """The governor on boards that are built otherwise."""
    places = product(WORKLOADS, ROBUST_STRUCTURES, CASES, AMBIENTS, ROBUST_POLICIES)
    for workload, structure, case, ambient, policy in places:
        scenario = Scenario(
            case=case,
            ambient=ambient,
            workload=workload,
            minutes=minutes,
            has_clock=has_clock,
            structure=structure,
        )
        yield Cell(scenario, policy)
