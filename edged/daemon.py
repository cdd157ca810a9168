"""Start, serve, stop: the daemon's life, and the tasks it consists of."""

import asyncio
import contextlib
import faulthandler
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import edged
from edged.allocator import TRIM_EVERY_S, Allocator
from edged.engine.handle import EngineHandle, ModelState
from edged.engine.supply import Supply
from edged.errors import ConfigError
from edged.governing import Governing
from edged.hardware.memory import status_bytes
from edged.pipeline import Pipeline
from edged.reloading import reloaded
from edged.settings import Settings, load_settings
from edged.spool.running import running
from edged.spool.spool import Spool
from edged.telemetry import presence
from edged.telemetry.journal import begin_logging
from edged.telemetry.status_line import status_line
from edged.telemetry.systemd import Supervisor
from edged.transports.mqtt import MqttTransport

log = logging.getLogger(__name__)

FLUSH_S = 5.0
"""A disk that has not taken the last answers by then is left to the next start."""
STATE_EVERY_S = 10.0
STATE_LOOK_S = 0.5
SPEED_STEP = 0.1
"""A retained card is not worth publishing again for less of a change in speed."""


class Daemon:
    """One node. ``run`` returns when it was asked to stop."""

    def __init__(
        self, settings: Settings, spool: Spool, read_settings: Callable[[], Settings]
    ) -> None:
        """``read_settings`` reads them again, for SIGHUP; it may raise ``ConfigError``."""
        self._settings = settings
        self._read_settings = read_settings
        self._spool = spool
        self._allocator = Allocator()
        self._supply = Supply(settings)
        self._engine = EngineHandle(self._supply)
        self._pipeline = Pipeline(settings.node, self._engine, spool, settings.queue)
        self._governing = Governing(settings, self._engine, self._pipeline, self._supply)
        self._transport = MqttTransport(settings, self._pipeline)
        self._supervisor = Supervisor()
        self._stop, self._stop_at_once = asyncio.Event(), asyncio.Event()
        self._reload = asyncio.Event()

    async def run(self, *, unclean: bool) -> None:
        """Serve until SIGTERM or SIGINT; raises what ended one of the tasks, if that came first."""
        log.info("edged %s, node %s", edged.__version__, self._settings.node)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        self._supply.start(unclean=unclean)
        self._allocator.settle()
        self._pipeline.recover(self._transport.send_to)
        work: dict[str, Coroutine[Any, Any, object]] = {
            "spool": self._spool.run(),
            "engine": self._engine.run(self._pipeline),
            "transport": self._transport.run(),
            "signs-of-life": self._pipeline.give_signs_of_life(),
            "governor": self._governing.run(),
            "presence": self._publish_presence(),
            "reloads": self._follow_reloads(),
            "memory": self._give_back_memory(),
            "supervisor": self._supervisor.watch(),
            "stop": self._stop.wait(),
        }
        tasks = [asyncio.create_task(run, name=name) for name, run in work.items()]
        loop.call_soon(self._supervisor.ready)  # when each has begun
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Also when a defect ends us: our disconnecting in good order silences the will.
            await self._say_goodbye()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()

    def _end(self) -> None:
        """The second time without waiting for anybody."""
        (self._stop_at_once if self._stop.is_set() else self._stop).set()

    async def _say_goodbye(self) -> None:
        """Answer who is being answered, and leave what waits to the next start."""
        log.info("stopping: %d are being answered", self._pipeline.active)
        self._supervisor.stopping()
        self._transport.serve_pools(False)
        drain_s = self._settings.drain_s if self._stop.is_set() else 0.0
        draining = asyncio.create_task(self._pipeline.drain(drain_s))
        at_once = asyncio.create_task(self._stop_at_once.wait())
        await asyncio.wait((draining, at_once), return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        draining.cancel()
        await self._flush_spool()
        await self._transport.say_goodbye()
        await self._flush_spool()  # what has arrived needs not be sent again

    async def _flush_spool(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._spool.flush()

    async def _give_back_memory(self) -> None:
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            self._allocator.trim()

    async def _follow_reloads(self) -> None:
        """On SIGHUP, the settings and the chosen model; who is being answered comes first."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._supervisor.reloading()
            begins_anew = await self._has_to_begin_anew()
            self._supervisor.ready()
            if begins_anew:
                self._engine.hold()
                await self._pipeline.wait_until_idle()
                self._engine.restart()

    async def _has_to_begin_anew(self) -> bool:
        """Whether what is chosen now needs another worker."""
        reads_anew = self._reload_settings()
        # What a worker would give back; pages of files count as available already.
        pid = self._engine.pid if self._engine.ready else None
        freed_bytes = None if pid is None else status_bytes(pid, "RssAnon", "RssShmem")
        if await self._supply.goes_over(freed_bytes):
            log.info("switching to %s", self._supply.switching_to)
            return True
        return reads_anew and pid is not None

    def _reload_settings(self) -> bool:
        """Whether the worker has to begin anew for what has changed."""
        try:
            outcome = reloaded(self._settings, self._read_settings())
        except ConfigError as error:
            log.error("%s; the settings stay as they were", error)  # noqa: TRY400 (no defect)
            return False
        if outcome.changed:
            log.info("settings changed: %s", ", ".join(outcome.changed))
        if outcome.waiting:
            log.warning("these need a restart to change: %s", ", ".join(outcome.waiting))
        before, self._settings = self._settings, outcome.settings
        logging.getLogger().setLevel(self._settings.log.level)
        self._spool.limits, self._spool.session_limits = (
            self._settings.spool,
            self._settings.session,
        )
        self._pipeline.limit(self._settings.queue)
        self._transport.use(self._settings)
        self._supply.use(self._settings)
        return before.chat.system_prompt != self._settings.chat.system_prompt

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
            faults += [fault for fault in (self._supply.fault, self._spool.fault) if fault]
            self._transport.serve_pools(self._pipeline.can_take)
            now = self._engine.state, self._governing.condition.level
            if last is not None and now != (last["model_state"], last["level"]):
                since_s = time.time()
            planned, ready = self._supply.planned, self._engine.ready
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
                    ready=ready,
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
                    ready,
                    shown_speed,
                    self._supply.profile,
                    planned,
                    pools=self._settings.mqtt.pools,
                )
            )
            # After the card: who reads that a model serves finds there which.
            if presence.changed(last, state) or now_s - last_s >= STATE_EVERY_S:
                self._transport.publish_state(state)
                self._supervisor.status(status_line(state, ready.model if ready else None))
                last, last_s = state, now_s
            await asyncio.sleep(STATE_LOOK_S)

    def _reason(self) -> str | None:
        """Why the model is in the state that it is in."""
        if self._pipeline.is_draining:
            return f"draining: the node stops, {self._pipeline.active} are being answered"
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


def run(settings: Settings, read_settings: Callable[[], Settings] = load_settings) -> None:
    """Run a node until it is asked to stop; ``read_settings`` reads them again for SIGHUP."""
    begin_logging(settings.log.level)
    faulthandler.enable()  # one that hangs and is aborted says where
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings, read_settings))


async def _serve(settings: Settings, read_settings: Callable[[], Settings]) -> None:
    with running(settings.state_dir) as unclean:
        spool = Spool(settings.state_dir, settings.spool, settings.session)
        try:
            await Daemon(settings, spool, read_settings).run(unclean=unclean)
        finally:
            spool.close()
