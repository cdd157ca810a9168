"""Start, serve, stop: the daemon's life, and the tasks it consists of."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine
from typing import Any

import edged
from edged.engine.handle import EngineHandle, ModelState
from edged.engine.supply import Supply
from edged.errors import EdgedError
from edged.governing import Governing
from edged.hardware.memory import status_bytes
from edged.pipeline import Pipeline
from edged.settings import Settings
from edged.spool.running import Running
from edged.telemetry import presence
from edged.transports.mqtt import MqttTransport

log = logging.getLogger(__name__)

STATE_EVERY_S = 10.0
STATE_LOOK_S = 0.5
SPEED_STEP = 0.1
"""A retained card is not worth publishing again for less of a change in speed."""


class Daemon:
    """One node. ``run`` returns when it was asked to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running = Running(settings.state_dir)
        self._supply = Supply(settings)
        self._engine = EngineHandle(self._supply)
        self._pipeline = Pipeline(settings.node, self._engine, settings.queue.max_prompts)
        self._governing = Governing(settings, self._engine, self._pipeline, self._supply)
        self._transport = MqttTransport(settings, self._pipeline)
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises what ended one of the tasks, if that came first."""
        log.info("edged %s, node %s", edged.__version__, self._settings.node)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        unclean = self._running.begin()
        try:
            self._supply.start(unclean=unclean)
        except EdgedError:
            self._running.end()
            raise
        work: dict[str, Coroutine[Any, Any, object]] = {
            "engine": self._engine.run(self._pipeline),
            "transport": self._transport.run(),
            "signs-of-life": self._pipeline.give_signs_of_life(),
            "governor": self._governing.run(),
            "presence": self._publish_presence(),
            "switch": self._switch_models(),
            "stop": self._stop.wait(),
        }
        tasks = [asyncio.create_task(run, name=name) for name, run in work.items()]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Also when a defect ends us: our disconnecting in good order silences the will.
            log.info("stopping")
            self._pipeline.drain()
            await self._transport.say_goodbye()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._running.end()
        for task in ended:
            task.result()

    async def _switch_models(self) -> None:
        """On SIGHUP, go over to the model that was chosen: who is being answered comes first."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            # What a worker would give back; pages of files count as available already.
            pid = self._engine.pid if self._engine.ready else None
            freed_bytes = None if pid is None else status_bytes(pid, "RssAnon", "RssShmem")
            if not await self._supply.goes_over(freed_bytes):
                continue
            log.info("switching to %s", self._supply.switching_to)
            self._engine.hold()
            await self._pipeline.wait_until_idle()
            self._engine.restart()

    async def _publish_presence(self) -> None:
        """The card when it changes; the state when it changes, and every ten seconds."""
        last: dict[str, Any] | None = None
        last_s = counted_s = time.monotonic()
        counted = 0
        tokens_per_s = 0.0
        shown_speed: float | None = None
        since_s = time.time()
        while True:
            now_s = time.monotonic()
            if now_s - counted_s >= 1:
                tokens_per_s = (self._pipeline.tokens - counted) / (now_s - counted_s)
                counted, counted_s = self._pipeline.tokens, now_s
            faults = [f"broker: {self._transport.problem}"] if self._transport.problem else []
            if self._supply.fault:
                faults.append(self._supply.fault)
            now = self._engine.state, self._governing.condition.level
            if last is not None and now != (last["model_state"], last["level"]):
                since_s = time.time()
            planned = self._supply.planned
            faults += self._governing.condition.faults
            state = presence.state(
                presence.Activity(
                    condition=self._governing.condition,
                    model_state=self._engine.state,
                    reason=self._reason(),
                    eta_s=self._eta_s(),
                    since_s=since_s,
                    queued=self._pipeline.queued,
                    active=self._pipeline.active,
                    tokens_per_s=tokens_per_s,
                    worker_pid=self._engine.pid,
                    ready=self._engine.ready,
                    needed_bytes=planned.needed_bytes if planned else None,
                    faults=tuple(faults),
                )
            )
            speed = self._pipeline.decode_tokens_per_s
            if speed is not None and abs(speed - (shown_speed or 0)) > SPEED_STEP * speed:
                shown_speed = round(speed, 1)
            self._transport.publish_card(
                presence.card(
                    self._settings.node,
                    self._engine.ready,
                    shown_speed,
                    self._supply.profile,
                    planned,
                )
            )
            # After the card: who reads that a model serves finds there which.
            if presence.changed(last, state) or now_s - last_s >= STATE_EVERY_S:
                self._transport.publish_state(state)
                last, last_s = state, now_s
            await asyncio.sleep(STATE_LOOK_S)

    def _reason(self) -> str | None:
        """Why the model is in the state that it is in."""
        if self._engine.state is ModelState.SWITCHING:
            return f"switching to {self._supply.switching_to}"
        planned = self._supply.planned
        if self._engine.state is ModelState.SERVING and planned is not None and planned.steps:
            return f"fallbacks: {'; '.join(planned.steps)}"
        return self._engine.reason

    def _eta_s(self) -> float | None:
        """When the next model may serve, as far as the last load and answers tell."""
        if self._engine.state is not ModelState.SWITCHING:
            return None
        answering_s = (self._pipeline.job_s or 0.0) if self._pipeline.active else 0.0
        return round(answering_s + self._engine.load_s, 1)


def run(settings: Settings) -> None:
    """Run a node until it is asked to stop."""
    logging.basicConfig(
        level=settings.log.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    await Daemon(settings).run()
