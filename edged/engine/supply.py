"""What the next worker is to load: planned anew for each start, with the way back from a switch."""

import asyncio
import logging
import sys
import time
from typing import Final

from edged.engine.frames import Load
from edged.engine.plan_frames import Answer, Question, decode_answer, encode
from edged.errors import ConfigError, EngineUnavailable, ModelFileError, OutOfMemory
from edged.hardware.memory import available
from edged.models.selection import Selection, read_selection, write_selection
from edged.settings import Settings

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 30.0
PLAN_AGAIN_S: Final = 60.0
"""Where memory is missing: a smaller model may have come into the store meanwhile."""


class Supply:
    """``Loads`` of ``edged.engine.handle``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._unverified = False
        self._selection = Selection()
        self._before: Selection | None = None
        self._damaged: dict[str, str] = {}
        self._planned_s = 0.0
        self.planned: Answer | None = None
        self.fault: str | None = None
        """What was to be served last and is not, and why."""

    @property
    def switching_to(self) -> str | None:
        """The model that is to replace the one that serves; ``None`` when none is."""
        if self._before is None:
            return None
        return self._selection.model or "the best that fits"

    def start(self, *, unclean: bool) -> None:
        """Read what was chosen before. Raises ``ConfigError``.

        After a stop that was not clean, the weights are compared with their checksum once.
        """
        self._unverified = unclean
        self._selection = read_selection(self._settings.state_dir)

    def reread(self) -> bool:
        """Whether something else has been chosen since, to be loaded next."""
        try:
            chosen = read_selection(self._settings.state_dir)
        except ConfigError as error:
            self.fault = str(error)
            log.error("%s", error)  # noqa: TRY400 (the sentence says it all)
            return False
        if chosen.model == self._selection.model:
            return False
        self.planned = None
        # Whatever was tried since, the way back leads to what served last.
        self._before, self._selection = self._before or self._selection, chosen
        return True

    async def next_load(self) -> Load:
        """See ``Loads``."""
        if self._settings.engine.name == "echo":
            self.planned = Answer(load=_echo(self._settings))
            return _echo(self._settings)
        self._look_for_memory()
        if self._unverified:
            log.info("the last stop was no clean one: models are compared with their checksums")
        planned = await self._ask()
        self.planned = planned
        for name, problem in planned.damaged.items():
            if name not in self._damaged:
                log.error("%s", problem)
                self.fault = f"model: {problem}"
        self._damaged = planned.damaged
        if planned.kind == "out_of_memory":
            self._planned_s = time.monotonic()
            raise _shortage(planned)
        if planned.load is None:
            raise ModelFileError(planned.error or "the planner gave no answer")
        self._unverified = False
        log.info("plan: %s", planned.reason)
        for step in planned.steps:
            log.warning("memory is short, so something has to give: %s", step)
        return planned.load

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

    async def _ask(self) -> Answer:
        """A planner's process, from start to end."""
        settings = self._settings
        now = available()
        question = Question(
            settings=settings.model_dump(
                include={"state_dir", "profile", "model", "engine"},
                exclude={"model": {"hub_token"}},
            ),
            chosen=self._selection.model,
            damaged=self._damaged,
            available_bytes=now.bytes,
            limited_by=now.limited_by,
            total_bytes=now.total_bytes,
            verify=self._unverified,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edged.engine.planner"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise EngineUnavailable(f"the planner cannot be started: {error.strerror}") from None
        try:
            said, _ = await process.communicate(encode(question))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise EngineUnavailable(
                f"the planner ended with exit code {process.returncode}; the log has its last words"
            )
        return decode_answer(said)

    def served(self) -> None:
        """What was loaded has given its first answer."""
        if self._before is not None:
            self._before = self.fault = None

    def failed(self, reason: str) -> bool:
        """See ``Loads``: goes back to what served before a switch."""
        if self._before is None:
            return False
        failed = self._selection.model
        back = Selection(self._before.model, failed=failed or "auto", reason=reason)
        self.fault = f"model: {failed or 'the best that fits'} does not serve: {reason}"
        log.error("%s; going back to %s", self.fault, back.model or "what served before")
        self._selection, self._before = back, None
        try:
            write_selection(self._settings.state_dir, back)
        except ConfigError as error:
            log.error("%s", error)  # noqa: TRY400 (the sentence says it all)
        return True


def _shortage(planned: Answer) -> OutOfMemory:
    return OutOfMemory(
        planned.error or "",
        retry_after_s=RETRY_AFTER_S,
        details={"needed": planned.needed_bytes, "available": planned.available_bytes},
    )


def _echo(settings: Settings) -> Load:
    """The echo engine has no weights to plan for."""
    return Load(
        engine="echo",
        model_path=None,
        state_dir=str(settings.state_dir),
        ctx=settings.engine.ctx,
        slots=settings.engine.slots or 1,
        threads=settings.engine.threads,
        echo_step_ms=settings.engine.echo_step_ms,
    )
