"""The process that plans: ``python -m edged.engine.planner``.

One ``Question`` on stdin, one ``Answer`` on stdout. It is a process of its own because headers
with large vocabularies, profiles and the catalogue take memory that the daemon should not keep.
"""

import logging
import sys

from edged.engine.echo_load import echo_load
from edged.engine.operating_points import read_operating_points
from edged.engine.plan_frames import Answer, Question, decode_question, encode
from edged.engine.planning import Planned, detection_of, local, make_plan, right_now
from edged.errors import EdgedError, ModelFileError
from edged.hardware.board import Board, Measured, board_of
from edged.hardware.detect import Detection
from edged.hardware.memory import Available
from edged.models.bundled import BUNDLED_MODEL
from edged.models.fallback import Shortfall
from edged.models.store import Store, prune_conversions
from edged.settings import Settings

log = logging.getLogger(__name__)


def answer(question: Question) -> Answer:
    """Plan, and look at the weights where that was asked for."""
    damaged = dict(question.damaged)
    try:
        return _answer(question, damaged)
    except EdgedError as error:
        return Answer(error=str(error), damaged=damaged)


def _answer(question: Question, damaged: dict[str, str]) -> Answer:
    settings = Settings(**question.settings)
    detection = detection_of(settings)
    board = _board(settings, detection)
    if settings.engine.name == "echo":
        return Answer(load=echo_load(settings), profile=detection.profile.name, board=board)
    _prune_conversions(settings)
    now = Available(question.available_bytes, question.limited_by, question.total_bytes)
    machine = local(settings, detection)
    while True:
        planned = make_plan(
            settings,
            machine,
            question.chosen,
            damaged,
            right_now(machine, now),
            may_be_bundled=question.may_be_bundled,
        )
        if isinstance(planned, Shortfall):
            return Answer(
                profile=detection.profile.name,
                needed_bytes=planned.needed_bytes,
                available_bytes=planned.available_bytes,
                is_of_gpu=planned.is_of_gpu,
                kind="out_of_memory",
                error=str(planned),
                damaged=damaged,
                board=board,
            )
        if question.verify and (problem := _damage(settings, planned)) is not None:
            damaged[planned.plan.candidate.name] = problem
            continue
        return Answer(
            load=planned.load,
            profile=detection.profile.name,
            rope=planned.plan.rope,
            steps=planned.steps,
            reason=planned.reason,
            needed_bytes=planned.plan.memory.both.total_bytes,
            damaged=damaged,
            board=board,
        )


def _board(settings: Settings, detection: Detection) -> Board:
    points = read_operating_points(settings.state_dir, detection.machine.identity)
    return board_of(
        detection.profile,
        cores=detection.machine.cores,
        limit_c=settings.throttle.limit_c,
        measured=tuple(
            Measured(each.threads, each.decode_tokens_per_s, each.prefill_tokens_per_s, each.watts)
            for each in (points.points if points else ())
        ),
    )


def _damage(settings: Settings, planned: Planned) -> str | None:
    """What is wrong with a model of the store, compared with what arrived there once."""
    store = Store(settings.model.store)
    name = planned.plan.candidate.name
    if planned.plan.candidate.path != store.weights_path(name):
        return None
    try:
        store.verify(store.find(name), deep=True)
    except ModelFileError as error:
        return str(error)
    return None


def _prune_conversions(settings: Settings) -> None:
    """Models that are gone leave none of ctransformers' conversions behind."""
    try:
        path, models = settings.model.path, Store(settings.model.store).models()
        keep = [BUNDLED_MODEL, *([path] if path else []), *(model.path for model in models)]
        prune_conversions(settings.state_dir, keep)
    except (OSError, ModelFileError) as error:
        log.warning("old conversions cannot be removed: %s", error)


if __name__ == "__main__":
    sys.stdout.buffer.write(encode(answer(decode_question(sys.stdin.buffer.read()))))
