"""The daemon's care for its board: sensors in, orders to the worker and the pipeline out.

    sensors (a thread) ─► thermal governor ─┬─► pace, clock cap ─► worker
                       └► memory governor ──┴─► prefixes, context, unloading ─► worker, supply

Twice a second; what decides is pure and lives in ``edged.throttle``.
"""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Final

from edged.engine.handle import EngineHandle, ModelState
from edged.engine.supply import Supply
from edged.errors import OutOfMemory, Overheated
from edged.hardware.clock import Clock
from edged.hardware.memory import status_bytes
from edged.hardware.pressure_watch import PressureWatch
from edged.hardware.sensors import Sensors
from edged.messages import MemoryReading, Pace, Reading
from edged.pipeline import Pipeline
from edged.settings import Settings
from edged.telemetry.presence import Condition
from edged.throttle.governor import Decision, Demand, ThermalGovernor
from edged.throttle.levels import ORDER
from edged.throttle.memory import MemoryDecision, MemoryGovernor, Step, Usage
from edged.throttle.memory_pressure import told_of

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
LATE_S: Final = 2.0
"""Sensors that have not answered by then are taken to say nothing."""
OVERHEATED_RETRY_S: Final = 60.0
NO_ROOM_S: Final = 60.0
"""Prompts wait so long for memory after the worker was ended, and are answered then."""
FORGET_EVERY_S: Final = 2.0
GROW_AFTER_S: Final = 600.0
"""With memory enough for so long, a context that was made smaller is given back."""
KEPT_FREE_BYTES: Final = 256 * 2**20
"""What a smaller plan leaves of the memory that became scarce, at the most."""


class Governing:
    """Of one daemon; ``run`` until cancelled."""

    def __init__(
        self, settings: Settings, engine: EngineHandle, pipeline: Pipeline, supply: Supply
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._pipeline = pipeline
        self._supply = supply
        self._root = settings.throttle.root
        self._thermal: ThermalGovernor | None = None
        self._memory = MemoryGovernor(keep_alive_s=settings.memory.keep_alive_s)
        self._pressure = PressureWatch()
        self._clock = Clock(self._root)
        self._sensors = Sensors(self._root, zone=None, is_told_of=self._pressure.tells_of)
        self._reading: asyncio.Future[Reading] | None = None
        self._watts: float | None = None
        self._busy_s = time.monotonic()
        self._forgot_s = 0.0
        self._step = Step.NONE
        self._last_memory: MemoryReading | None = None
        self._replanning: asyncio.Task[None] | None = None
        self._ended_s: float | None = None
        self._plenty_s = time.monotonic()
        self.condition = Condition()

    async def run(self) -> None:
        """Look, decide, act."""
        self._pressure.start()
        try:
            while True:
                self._know_the_board()
                self._act(await self._read())
                await asyncio.sleep(LOOK_S)
        finally:
            self._pressure.close()
            self._clock.restore()
            if self._replanning is not None:
                self._replanning.cancel()

    def _know_the_board(self) -> None:
        """As soon as a plan has told; before that only the memory is watched."""
        planned = self._supply.planned
        if self._thermal is not None or planned is None or planned.board is None:
            return
        has_clock = self._settings.throttle.clock and self._clock.available_mhz is not None
        self._thermal = ThermalGovernor(planned.board, has_clock=has_clock)
        is_told_of = self._pressure.tells_of
        self._sensors = Sensors(self._root, zone=planned.board.zone, is_told_of=is_told_of)

    async def _read(self) -> Reading:
        """In a thread: a sensor may take its time, nothing else waits for it."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(
                asyncio.to_thread(self._sensors.read, self._watts)
            )
        done, _ = await asyncio.wait([self._reading], timeout=LATE_S)
        if not done:
            fault = f"sensors: no answer within {LATE_S:g} s"
            return Reading(time.monotonic(), faults=(fault,))
        reading, self._reading = self._reading.result(), None
        return reading

    def _act(self, reading: Reading) -> None:
        active = self._pipeline.active
        if active or self._pipeline.queued:
            self._busy_s = time.monotonic()
        demand = Demand(self._pipeline.queued, self._pipeline.reading, active)
        thermal = self._thermal.decide(reading, demand) if self._thermal is not None else None
        available = told_of(reading.memory) if self._pressure.is_pressed else reading.memory
        memory = self._memory.decide(available, self._usage(), time.monotonic())
        self._last_memory = reading.memory
        self._pace(thermal, memory)
        if thermal is not None:
            self._watts = thermal.watts
            self._clock.cap(thermal.clock_mhz)
            if thermal.is_overheated:
                self._pipeline.sleep(_overheated(reading, thermal))
            else:
                self._pipeline.wake()
        self._follow(memory)
        self._pipeline.rests = self._engine.is_unloaded and memory.level == "nominal"
        self._tell(reading, thermal, memory)

    def _usage(self) -> Usage:
        ready, planned = self._engine.ready, self._supply.planned
        pid = self._engine.pid
        return Usage(
            is_loading=self._engine.state in (ModelState.LOADING, ModelState.SWITCHING),
            is_loaded=ready is not None,
            active=self._pipeline.active,
            queued=self._pipeline.queued,
            idle_s=time.monotonic() - self._busy_s,
            worker_bytes=None if pid is None else status_bytes(pid, "VmRSS"),
            ctx=ready.ctx if ready else None,
            needed_bytes=planned.needed_bytes if planned else None,
        )

    def _pace(self, thermal: Decision | None, memory: MemoryDecision) -> None:
        pace = thermal.pace if thermal is not None else Pace()
        widths = [each for each in (pace.width, memory.width) if each is not None]
        pace = replace(
            pace,
            width=min(widths, default=None),
            max_prompt_tokens=memory.max_prompt_tokens,
            paused=pace.paused or (thermal is not None and thermal.is_overheated),
        )
        self._engine.pace(pace)
        self._pipeline.speed = thermal.speed if thermal is not None else 1.0

    def _follow(self, memory: MemoryDecision) -> None:
        """Give back as much memory as is asked for, or take it again."""
        now_s, before = time.monotonic(), self._step
        self._step = memory.step
        if memory.step >= Step.FORGET_PREFIXES and now_s - self._forgot_s >= FORGET_EVERY_S:
            self._forgot_s = now_s
            self._engine.forget_prefixes()
        if memory.step >= Step.UNLOAD_IDLE:
            self._engine.unload(memory.reason)
            self._answer_those_who_wait(memory, now_s)
        elif self._engine.is_unloaded:
            self._ended_s = None
            self._engine.load()
        if memory.step is Step.SHRINK_CONTEXT and before is not Step.SHRINK_CONTEXT:
            self._plan_anew(self._kept_free_bytes())
        if memory.step is not Step.NONE:
            self._plenty_s = now_s
        elif self._supply.kept_free_bytes and now_s - self._plenty_s >= GROW_AFTER_S:
            self._plan_anew(0)

    def _kept_free_bytes(self) -> int:
        """A part of what there is without the worker, else no plan would fit at all."""
        memory, held_bytes = self._last_memory, self._usage().worker_bytes or 0
        there_bytes = held_bytes + (memory.available_bytes if memory is not None else 0)
        return min(KEPT_FREE_BYTES, there_bytes // 4)

    def _plan_anew(self, kept_free_bytes: int) -> None:
        """Find out whether another plan would serve better with so much left to others."""
        if self._replanning is None or self._replanning.done():
            self._supply.kept_free_bytes = kept_free_bytes
            self._replanning = asyncio.create_task(self._replan(), name="replan")

    async def _replan(self) -> None:
        """Only where nobody is being answered: memory must be worth a load, not a prompt."""
        pid = self._engine.pid
        if pid is None or not await self._supply.would_differ(status_bytes(pid, "RssAnon")):
            return
        if self._engine.ready is not None and not self._pipeline.active:
            self._engine.hold()
            self._engine.restart()

    def _answer_those_who_wait(self, memory: MemoryDecision, now_s: float) -> None:
        """After a while without room for the model, that is the answer."""
        if memory.step is not Step.END_WORKER:
            return
        if self._ended_s is None:
            self._ended_s = now_s
        if now_s - self._ended_s >= NO_ROOM_S and self._engine.state is ModelState.UNLOADED:
            usage = self._usage()
            self._engine.refuse(
                OutOfMemory(
                    f"the model was unloaded: {memory.reason}",
                    retry_after_s=NO_ROOM_S,
                    details={"needed": usage.needed_bytes},
                )
            )

    def _tell(self, reading: Reading, thermal: Decision | None, memory: MemoryDecision) -> None:
        """The worse of both is the node's level; a line in the log for each change of it."""
        level, reason = memory.level, memory.reason
        if thermal is not None and ORDER.index(thermal.level) > ORDER.index(level):
            level, reason = thermal.level, thermal.reason
            if thermal.sensor is not None:
                reason = f"{thermal.sensor}: {reason}"
        before = self.condition
        faults = reading.faults + ((self._clock.fault,) if self._clock.fault else ())
        self.condition = Condition(
            level=level,
            reason=reason or None,
            sensor=thermal.sensor if thermal is not None else None,
            limit_c=thermal.limit_c if thermal is not None else None,
            forecast_c=thermal.forecast_c if thermal is not None else None,
            reading=reading,
            faults=faults,
        )
        self._pipeline.tell_level(level, reason or "")
        if level != before.level:
            temperature = _celsius(reading.temperature_c)
            log.warning(
                "%s (was %s): %s%s",
                *(level, before.level, reason or "all well", temperature),
                extra={"EDGED_LEVEL": level},
            )


def _overheated(reading: Reading, thermal: Decision) -> Overheated:
    return Overheated(
        f"the board is at {_celsius(reading.temperature_c).strip(', ')}, and about to switch off; "
        "ask again when it has cooled down",
        retry_after_s=OVERHEATED_RETRY_S,
        details={"temperature_c": reading.temperature_c, "limit_c": thermal.limit_c},
    )


def _celsius(temperature_c: float | None) -> str:
    return "" if temperature_c is None else f", {temperature_c:.1f} °C"
