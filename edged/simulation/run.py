"""The closed loop in virtual time: worker → board → files → sensors → policy → worker."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edged.hardware.sensors import Sensors
from edged.hardware.twin import Twin
from edged.messages import Level
from edged.simulation.policies import Order, policy_of
from edged.simulation.results import Percentiles, Results, Series, percentiles
from edged.simulation.scenario import Ambient, Scenario
from edged.simulation.worker import Flow, VirtualWorker
from edged.simulation.workloads import sources_of
from edged.throttle.governor import Demand

STEP_S: Final = 0.25
STEPS_A_DECISION: Final = 2
_CLOCK_FILE: Final = "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
_EXCESS_C: Final = 1e-6
"""A board that settles at its limit is not above it."""
_REPORTED_STEPS: Final = 240
_NOTHING_S: Final = 1e-9


def simulate(
    scenario: Scenario,
    policy: str,
    *,
    progress: Callable[[float], None] = lambda _minutes: None,
    with_series: bool = False,
) -> Results:
    """Run one policy; ``progress`` is told the virtual minutes that have passed.

    Raises ``ConfigError`` where the scenario cannot be.
    """
    with tempfile.TemporaryDirectory(prefix="edged-twin-") as root:
        return _Simulation(scenario, policy, Path(root)).run(progress, with_series=with_series)


def unthrottled_first_token_s(scenario: Scenario) -> Percentiles | None:
    """The same prompts on a machine that never heats."""
    worker = VirtualWorker(sources_of(scenario.workload, scenario.seed))
    full = Flow(watts=0.0, decode=1.0, prefill=1.0)
    until_s = 60 * scenario.minutes
    while worker.now_s < until_s - _NOTHING_S:
        worker.begin()
        worker.work(until_s - worker.now_s, full)
    return percentiles(worker.first_tokens_s)


class _Simulation:
    def __init__(self, scenario: Scenario, policy: str, root: Path) -> None:
        self._scenario = scenario
        self._policy_name = policy
        self._board = scenario.board()
        self._ambient = Ambient.parse(scenario.ambient)
        self._policy = policy_of(policy, scenario, self._board)
        self._worker = VirtualWorker(sources_of(scenario.workload, scenario.seed))
        self._twin = Twin(self._board, root, ambient_c=self._ambient.at(0.0), seed=scenario.seed)
        self._sensors = Sensors(root, zone=self._board.zone, monotonic=lambda: self._twin.now_s)
        self._clock_file = root / _CLOCK_FILE
        self._clock_mhz = self._board.max_mhz
        self._order = Order("nominal", watts=self._board.idle_w)
        self._levels: dict[Level, float] = dict.fromkeys(
            ("nominal", "trimmed", "throttled", "paused"), 0.0
        )
        self._above_limit = self._above_hard = 0
        self._peak_c = self._twin.temperature_c
        self._series = Series()

    def run(self, progress: Callable[[float], None], *, with_series: bool) -> Results:
        steps = round(60 * self._scenario.minutes / STEP_S)
        for step in range(steps):
            self._twin.ambient_c = self._ambient.at(step * STEP_S)
            if step % STEPS_A_DECISION == 0:
                self._decide()
                if with_series:
                    self._note()
            self._step()
            if step % _REPORTED_STEPS == 0:
                progress(step * STEP_S / 60)
        return self._results()

    def _decide(self) -> None:
        self._worker.begin()
        self._twin.publish()
        reading = self._sensors.read(watts=self._order.watts)
        worker = self._worker
        demand = Demand(worker.queued, worker.reading, worker.answering)
        self._order = self._policy.decide(reading, demand)
        if self._scenario.has_clock:
            self._cap(self._order.clock_mhz or self._board.max_mhz)
        self._twin.obey()

    def _cap(self, mhz: int) -> None:
        if mhz != self._clock_mhz:
            self._clock_mhz = mhz
            self._clock_file.write_text(f"{mhz * 1000}\n")

    def _step(self) -> None:
        left_s = STEP_S
        while left_s > _NOTHING_S:
            self._worker.begin()
            flow = self._flow()
            took_s = self._worker.work(left_s, flow)
            self._twin.advance(took_s, flow.watts)
            left_s -= took_s
        self._levels[self._order.level] += STEP_S
        temperature_c = self._twin.temperature_c
        self._peak_c = max(self._peak_c, temperature_c)
        self._above_limit += temperature_c > self._board.soft_c + _EXCESS_C
        self._above_hard += temperature_c > self._board.hard_c + _EXCESS_C

    def _flow(self) -> Flow:
        """How the board works until something begins or ends: rests are averaged."""
        is_reading = self._worker.reading > 0
        pace = self._order.pace
        idle_w = self._board.idle_w
        if pace.paused or not (is_reading or self._worker.answering):
            return Flow(idle_w, 0.0, 0.0)
        if self._order.flows is not None:
            decode, prefill = self._order.flows
            return prefill if is_reading else decode
        threads = pace.threads_prefill if is_reading else pace.threads_decode
        duty = pace.duty_prefill if is_reading else pace.duty_decode
        twin = self._twin
        watts = duty * twin.watts(threads) + (1 - duty) * idle_w
        return Flow(watts, twin.decode_speed(threads), twin.prefill_speed(threads), duty)

    def _note(self) -> None:
        series, twin = self._series, self._twin
        series.minutes.append(twin.now_s / 60)
        series.true_c.append(twin.temperature_c)
        series.sensed_c.append(twin.sensed_c)
        series.clock_mhz.append(twin.clock_mhz)
        series.watts.append(self._flow().watts)
        series.tokens.append(self._worker.tokens)
        series.levels.append(self._order.level)

    def _results(self) -> Results:
        return Results(
            scenario=self._scenario,
            policy=self._policy_name,
            limit_c=self._board.soft_c,
            tokens=self._worker.tokens,
            prefill_tokens=self._worker.prefill_tokens,
            seconds_above_limit=self._above_limit * STEP_S,
            seconds_above_hard=self._above_hard * STEP_S,
            peak_c=self._peak_c,
            joules=self._twin.joules,
            first_tokens=len(self._worker.first_tokens_s),
            first_token_s=percentiles(self._worker.first_tokens_s),
            unthrottled_first_token_s=unthrottled_first_token_s(self._scenario),
            levels=self._levels,
            series=self._series,
        )
