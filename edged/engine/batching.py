"""The next batch: one token of each answer, its drafts, and as much of the prompts as time allows.

Pure: what runs and what steps have taken go in, chunks come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edged.engine.costs import StepCosts
from edged.engine.lookup import Draft, Speculation
from edged.engine.protocol import BatchChunk
from edged.engine.run import Run

CHUNK_S: Final = 0.25
"""How long a prompt may hold up the answers of others in one step."""
ALONE_CHUNK_S: Final = 1.0
"""The same where nobody is being answered: a cancel, or a new prompt, waits so long at the most."""
FIRST_CHUNK_TOKENS: Final = 32
JOINED: Final = 1.5
"""Where nobody is being answered, a prompt is read in one step that is this much longer rather than
in two: every step computes the rows of its last, unfinished block, and costs its overhead."""
NARROW_ROWS: Final = 16
"""Up to here it matters how many rows a kernel's block has; the worker measures it at its start."""
BLOCK_ROWS: Final = 4
"""The rows of a block of the CPU's interleaved kernels; fewer take as long."""


@dataclass(frozen=True)
class Part:
    """A run's chunk of a batch; the last of its tokens may be a draft, not chosen yet."""

    run: Run
    chunk: BatchChunk
    draft: Draft | None = None


def next_batch(
    runs: Sequence[Run],
    costs: StepCosts,
    speculation: Speculation | None,
    *,
    max_batch_tokens: int,
    max_outputs: int,
    most_chunk_s: float | None = None,
) -> list[Part]:
    """What to decode next, prompts in the order of their rank, in ``most_chunk_s`` at the most.

    With a prompt in it a step drafts nothing: the prompt makes use of its width.
    """
    answering = [run for run in runs if run.is_answering]
    reading = sorted((run for run in runs if not run.is_answering), key=lambda run: run.rank)
    if not reading:
        return _decoding(answering, costs, speculation, max_outputs)
    parts = [_answering(run) for run in answering]
    chunk_s = CHUNK_S if answering else ALONE_CHUNK_S
    chunk_s = min(chunk_s, most_chunk_s or chunk_s)
    budget = chunk_beside(costs, chunk_s, len(parts)) if parts else chunk_tokens(costs, chunk_s)
    room = min(budget, max_batch_tokens - len(parts))
    for run in reading:
        if room <= 0:
            break
        if not parts and room < len(run.unread) <= JOINED * room:
            room = min(len(run.unread), max_batch_tokens)
        tokens = run.unread[:room]
        is_last = len(run.held.tokens) + len(tokens) == len(run.prompt)
        chunk = BatchChunk(run.held.index, len(run.held.tokens), tokens, outputs=int(is_last))
        parts.append(Part(run, chunk))
        room -= len(tokens)
    return parts


def chunk_tokens(costs: StepCosts, chunk_s: float) -> int:
    """How many tokens of prompts are read in about ``chunk_s``."""
    if costs.prefill_s_per_token is None:
        return FIRST_CHUNK_TOKENS
    tokens = int(chunk_s / max(costs.prefill_s_per_token, 1e-6))
    return max(1, tokens // BLOCK_ROWS) * BLOCK_ROWS


def chunk_beside(costs: StepCosts, chunk_s: float, answers: int) -> int:
    """The same in a step that also decodes a token of each of so many answers.

    Where that makes a narrow step, the width that gets most done is taken, of those for which no
    answer waits longer than two normal steps and a chunk: kernels work on blocks of 4 rows, some on
    16 at once, so that 12 rows may take as long as 16.
    """
    normal_s = costs.decode_s(answers)
    tokens = chunk_tokens(costs, chunk_s)
    if normal_s is None or answers + tokens > NARROW_ROWS:
        return (
            max((answers + tokens) // BLOCK_ROWS, answers // BLOCK_ROWS + 1) * BLOCK_ROWS - answers
        )
    most_s = chunk_s + 2 * normal_s
    least = (answers // BLOCK_ROWS + 1) * BLOCK_ROWS
    widths = range(least, max(least, NARROW_ROWS) + 1, BLOCK_ROWS)
    step_s = {rows: costs.decode_s(rows) or 0.0 for rows in widths}
    fitting = [rows for rows in widths if step_s[rows] < most_s] or [least]
    return max(fitting, key=lambda rows: (rows / max(step_s[rows], 1e-9), rows)) - answers


def _answering(run: Run, draft: Draft | None = None) -> Part:
    tokens = [run.answer[-1], *(draft.tokens if draft else ())]
    chunk = BatchChunk(run.held.index, len(run.held.tokens), tokens, outputs=len(tokens))
    return Part(run, chunk, draft)


def _decoding(
    answering: Sequence[Run], costs: StepCosts, speculation: Speculation | None, max_outputs: int
) -> list[Part]:
    parts = []
    width = len(answering)
    for run in answering:
        draft = None
        if speculation is not None:
            draft = _draft(run, costs, speculation, width, max_outputs - width)
        width += len(draft.tokens) if draft else 0
        parts.append(_answering(run, draft))
    return parts


def _draft(
    run: Run, costs: StepCosts, speculation: Speculation, width: int, room: int
) -> Draft | None:
    """The tokens worth verifying in a step that is ``width`` tokens wide without them."""
    # The last token of an answer is not decoded any more, so there is no row for what follows it.
    left = min(
        run.max_tokens - len(run.answer) - 1,
        run.held.reserved - len(run.held.tokens) - 2,
    )
    draft = run.lookup.draft(min(room, left))
    if draft is None or costs.decode_s(width) is None:
        return None
    count = speculation.width(draft, lambda more: costs.decode_s(width + more) or 1.0, width - 1)
    return Draft(draft.tokens[:count], draft.matched) if count else None
