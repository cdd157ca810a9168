"""What the daemon and the planner's process say to each other: one question, one answer."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from edged.engine.frames import Load
from edged.hardware.board import Board


@dataclass(frozen=True)
class Question:
    """What the daemon knows: its settings, who was chosen, who is damaged, what is available."""

    settings: dict[str, Any]
    chosen: str | None
    damaged: dict[str, str]
    may_be_bundled: bool
    """Whether the bundled model may serve although there is a store: it did so before."""
    available_bytes: int
    limited_by: str
    total_bytes: int
    verify: bool
    """Whether to compare a model of the store with its checksum; takes seconds."""


@dataclass(frozen=True)
class Answer:
    """``load`` is ``None`` where nothing can be loaded; ``error`` says why.

    ``kind`` is ``out_of_memory`` where it is memory that is missing.
    """

    load: Load | None = None
    profile: str | None = None
    rope: str | None = None
    steps: tuple[str, ...] = ()
    reason: str = ""
    needed_bytes: int | None = None
    available_bytes: int | None = None
    is_of_gpu: bool = False
    """Whether it is the GPU's memory that is missing."""
    kind: str | None = None
    error: str | None = None
    damaged: dict[str, str] = field(default_factory=dict)
    board: Board | None = None
    """What the governor has to know of this machine."""


def encode(message: Question | Answer) -> bytes:
    """Escaped, since a path may hold bytes that are no UTF-8 (as lone surrogates)."""
    return json.dumps(asdict(message), default=str).encode("ascii")


def decode_question(body: bytes) -> Question:
    """Raises ``ValueError`` or ``TypeError`` where the daemon said something else."""
    return Question(**json.loads(body))


def decode_answer(body: bytes) -> Answer:
    """Raises ``ValueError`` or ``TypeError`` where the planner said something else."""
    fields = json.loads(body)
    load, board = fields.pop("load"), fields.pop("board")
    return Answer(
        load=None if load is None else Load(**load),
        board=None if board is None else Board.of_json(board),
        steps=tuple(fields.pop("steps")),
        **fields,
    )
