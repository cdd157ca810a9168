"""What the next worker is to load: planned anew for each start, with the way back from a switch."""

import asyncio
import logging
import sys
import time
from dataclasses import dataclass, replace
from typing import Final

from edged.engine.echo_load import echo_load
from edged.engine.frames import Load
from edged.engine.plan_frames import Answer, Question, decode_answer, encode
from edged.errors import ConfigError, EdgedError, EngineUnavailable, ModelFileError, OutOfMemory
from edged.hardware.memory import available
from edged.models.bundled import BUNDLED_MODEL
from edged.models.layout import weights_path
from edged.models.selection import Selection, read_selection, write_selection
from edged.settings import Settings

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 30.0
PLAN_AGAIN_S: Final = 60.0
"""Where memory is missing: a smaller model may have come into the store meanwhile."""
LEFT_OUT_S: Final = 3600.0
"""How long a model that failed to load is passed over for another of the store."""
PLANNER_LIMIT_S: Final = 120.0
VERIFYING_LIMIT_S: Final = 3600.0
MAX_DEATHS: Final = 3
"""Workers that may die in loading before the model itself is held to be the cause."""
LESS_AFTER_DEATH: Final = 0.9
"""What of the available memory is planned with after such a death: most likely it was too much."""


@dataclass(frozen=True)
class _LeftOut:
    """Why a model of the store is passed over, until its file changes or the time has come."""

    problem: str
    mtime_ns: int
    until_s: float


class Supply:
    """``Loads`` of ``edged.engine.handle``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._unverified = False
        self._selection = Selection()
        self._before: Selection | None = None
        self._left_out: dict[str, _LeftOut] = {}
        self._served: Load | None = None
        self._deaths = 0
        self._planned_s = 0.0
        self.planned: Answer | None = None
        self.profile: str | None = None
        """The hardware profile's name, once it is known."""
        self.kept_free_bytes = 0
        """What plans must leave of the available memory, after it has become scarce."""
        self.fault: str | None = None
        """What was to be served last and is not, and why."""

    @property
    def switching_to(self) -> str:
        """What is to be served next, in words."""
        if self._before is None:
            return "what served before"
        return self._selection.model or "the best that fits"

    def use(self, settings: Settings) -> None:
        """Plan with these from the next load on."""
        self._settings = settings

    def start(self, *, unclean: bool) -> None:
        """Read what was chosen before. Raises ``ConfigError``.

        After a stop that was not clean, the weights are compared with their checksum once.
        """
        self._unverified = unclean
        self._selection = read_selection(self._settings.state_dir)

    async def goes_over(self, worker_bytes: int | None) -> bool:
        """Read what has been chosen since; whether another model is to be loaded for it.

        ``worker_bytes`` is what the worker that serves would give back, ``None`` where none
        does. What could not be served is answered at once, and nothing is stopped for it.
        """
        try:
            chosen = read_selection(self._settings.state_dir)
        except ConfigError as error:
            self.fault = str(error)
            log.error("%s", error)  # noqa: TRY400 (the sentence says it all)
            return False
        self.fault = None
        if chosen.model is None:
            self._left_out.clear()
        else:
            self._left_out.pop(chosen.model, None)
        if chosen.model != self._selection.model:
            # Whatever was tried since, the way back leads to what served last.
            self._before = self._before or self._selection
        self._selection = replace(chosen, serves=None)
        if worker_bytes is None or self._served is None:
            self.planned = None
            return True
        try:
            planned = await self._ask(worker_bytes)
        except EdgedError as error:
            planned = Answer(error=str(error))
        if planned.load is None:
            reason = planned.error or "it cannot be planned for"
            if not self.failed(reason, load=None):
                self._tell(replace(self._selection, failed=chosen.model, reason=reason))
            return False
        if planned.load.model_path == self._served.model_path:
            self._before = None
            self._tell(replace(self._selection, serves=self._served.model_name))
            return False
        return True

    async def would_differ(self, worker_bytes: int) -> bool:
        """Whether a plan made now, with what the worker gives back, is another than what serves."""
        try:
            planned = await self._ask(worker_bytes)
        except EdgedError:
            return False
        return planned.load is not None and planned.load != self._served

    async def next_load(self) -> Load:
        """See ``Loads``."""
        if self._settings.engine.name == "echo" and self._settings.profile is None:
            self.planned = Answer(load=echo_load(self._settings))
            return echo_load(self._settings)
        self._look_for_memory()
        if self._unverified:
            log.info("the last stop was no clean one: models are compared with their checksums")
        planned = await self._ask(0)
        self.planned = planned
        self.profile = planned.profile or self.profile
        for name, problem in planned.damaged.items():
            if name not in self._left_out:
                log.error("%s", problem)
                self.fault = f"model: {problem}"
                self._leave_out(name, problem, float("inf"))
        if planned.kind == "out_of_memory":
            self._planned_s = time.monotonic()
            raise _shortage(planned)
        if planned.load is None:
            raise ModelFileError(planned.error or "the planner gave no answer")
        self._unverified = False
        log.info("plan: %s", planned.reason)
        for step in planned.steps:
            log.warning("fallback: %s", step)
        return planned.load

    def served(self) -> None:
        """What was loaded has given its first answer."""
        assert self.planned is not None
        self._served, self._before, self._deaths = self.planned.load, None, 0
        if self._served is not None and self._served.engine != "echo":
            self._selection = replace(self._selection, serves=self._served.model_name)
            self._tell(self._selection)

    def failed(self, reason: str, load: Load | None, *, died: bool = False) -> bool:
        """See ``Loads``: back to what served before a switch, else on to another of the store."""
        if died and load is not None and self._before is None:
            self._deaths += 1
            if self._deaths < MAX_DEATHS:
                return False
        self._deaths = 0
        name = self._stored_name(load)
        if name is not None:
            self._leave_out(name, reason, time.monotonic() + LEFT_OUT_S)
            self.planned = None
        if self._before is None:
            if name is not None:
                self.fault = f"model: {name} does not serve: {reason}"
                log.error("%s", self.fault)
            return name is not None
        chosen = self._selection.model or "the best that fits"
        back = Selection(self._before.model, failed=chosen, reason=reason)
        self.fault = f"model: {chosen} does not serve: {reason}"
        log.error("%s; going back to %s", self.fault, back.model or "what served before")
        self._selection, self._before, self.planned = back, None, None
        self._tell(back)
        return True

    def _tell(self, selection: Selection) -> None:
        """For ``edged models use``, which waits for it."""
        try:
            write_selection(self._settings.state_dir, selection)
        except ConfigError as error:
            log.error("%s", error)  # noqa: TRY400 (the sentence says it all)

    def _stored_name(self, load: Load | None) -> str | None:
        """The name in the store of what was to be loaded, if it is a model of the store."""
        if load is None or load.model_path is None or load.model_name is None:
            return None
        path = weights_path(self._settings.model.store, load.model_name)
        return load.model_name if load.model_path == str(path) else None

    def _leave_out(self, name: str, problem: str, until_s: float) -> None:
        self._left_out[name] = _LeftOut(problem, self._mtime_ns(name), until_s)

    def _mtime_ns(self, name: str) -> int:
        try:
            return weights_path(self._settings.model.store, name).stat().st_mtime_ns
        except OSError:
            return 0

    def _look_for_memory(self) -> None:
        """Raise the last ``OutOfMemory`` again as long as nothing can have changed.

        A look at the available memory costs nothing, a planner's process a second or more.
        """
        last = self.planned
        if last is None or last.kind != "out_of_memory" or last.needed_bytes is None:
            return
        is_recent = time.monotonic() - self._planned_s < PLAN_AGAIN_S
        if is_recent and not last.is_of_gpu and available().bytes < last.needed_bytes:
            raise _shortage(last)

    def _planned_with(self, available_bytes: int) -> int:
        left_bytes = max(0, available_bytes - self.kept_free_bytes)
        return int(left_bytes * LESS_AFTER_DEATH**self._deaths)

    async def _ask(self, worker_bytes: int) -> Answer:
        """A planner's process, from start to end; ``worker_bytes`` will be given back to it.

        Raises ``EngineUnavailable`` where it does not answer.
        """
        settings = self._settings
        now_s = time.monotonic()
        for name, left_out in list(self._left_out.items()):
            if left_out.mtime_ns != self._mtime_ns(name) or left_out.until_s < now_s:
                del self._left_out[name]
        now = available()
        question = Question(
            settings=settings.model_dump(
                include={"state_dir", "profile", "model", "engine", "chat", "throttle"},
                exclude={"model": {"hub_token"}},
            ),
            chosen=self._selection.model,
            damaged={name: each.problem for name, each in self._left_out.items()},
            may_be_bundled=self._served is not None
            and self._served.model_path == str(BUNDLED_MODEL),
            available_bytes=self._planned_with(now.bytes + worker_bytes),
            limited_by=now.limited_by,
            total_bytes=now.total_bytes,
            verify=self._unverified,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edged.engine.planner"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the daemon's, which ends it
            )
        except OSError as error:
            raise EngineUnavailable(f"the planner cannot be started: {error.strerror}") from None
        limit_s = VERIFYING_LIMIT_S if self._unverified else PLANNER_LIMIT_S
        try:
            async with asyncio.timeout(limit_s):
                said, _ = await process.communicate(encode(question))
        except TimeoutError:
            raise EngineUnavailable(f"the planner took more than {limit_s:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise EngineUnavailable(
                f"the planner ended with exit code {process.returncode}; the log has its last words"
            )
        try:
            return decode_answer(said)
        except (ValueError, TypeError) as error:
            raise EngineUnavailable(f"the planner's answer makes no sense: {error}") from None


def _shortage(planned: Answer) -> OutOfMemory:
    return OutOfMemory(
        planned.error or "",
        retry_after_s=RETRY_AFTER_S,
        details={"needed": planned.needed_bytes, "available": planned.available_bytes},
    )
