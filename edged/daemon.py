"""Start, serve, stop: the daemon's life, and the tasks it consists of."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine
from typing import Any

import edged
from edged.engine.frames import Load
from edged.engine.handle import EngineHandle
from edged.pipeline import Pipeline
from edged.settings import Settings
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
        self._engine = EngineHandle(_load(settings))
        self._pipeline = Pipeline(settings.node, self._engine, settings.queue.max_prompts)
        self._transport = MqttTransport(settings, self._pipeline)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises what ended one of the tasks, if that came first."""
        log.info("edged %s, node %s", edged.__version__, self._settings.node)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        work: dict[str, Coroutine[Any, Any, object]] = {
            "engine": self._engine.run(self._pipeline),
            "transport": self._transport.run(),
            "signs-of-life": self._pipeline.give_signs_of_life(),
            "presence": self._publish_presence(),
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
        for task in ended:
            task.result()

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
            problem = self._transport.problem
            if last is not None and last["model_state"] != self._engine.state:
                since_s = time.time()
            state = presence.state(
                presence.Activity(
                    model_state=self._engine.state,
                    reason=self._engine.reason,
                    since_s=since_s,
                    queued=self._pipeline.queued,
                    active=self._pipeline.active,
                    tokens_per_s=tokens_per_s,
                    worker_pid=self._engine.pid,
                    ready=self._engine.ready,
                    faults=(f"broker: {problem}",) if problem else (),
                )
            )
            if presence.changed(last, state) or now_s - last_s >= STATE_EVERY_S:
                self._transport.publish_state(state)
                last, last_s = state, now_s
            speed = self._pipeline.decode_tokens_per_s
            if speed is not None and abs(speed - (shown_speed or 0)) > SPEED_STEP * speed:
                shown_speed = round(speed, 1)
            self._transport.publish_card(
                presence.card(self._settings.node, self._engine.ready, shown_speed)
            )
            await asyncio.sleep(STATE_LOOK_S)


def _load(settings: Settings) -> Load:
    return Load(
        engine=settings.engine.name,
        model_path=None if settings.model.path is None else str(settings.model.path),
        state_dir=str(settings.state_dir),
        ctx=settings.engine.ctx,
        slots=settings.engine.slots,
        threads=settings.engine.threads,
        echo_step_ms=settings.engine.echo_step_ms,
    )


def run(settings: Settings) -> None:
    """Run a node until it is asked to stop."""
    logging.basicConfig(
        level=settings.log.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    await Daemon(settings).run()
