"""How fast every number of threads is, and what it draws."""

import os
from datetime import UTC, datetime
from pathlib import Path

from edged.bench import prompts
from edged.bench.direct import Direct
from edged.bench.figures import figures
from edged.bench.rounds import Progress
from edged.engine.frames import Load
from edged.engine.operating_points import MeasuredPoint, OperatingPoints
from edged.hardware.machine import read_machine
from edged.hardware.power import measured_watts
from edged.models.gguf import read_header

_ALL_UP_TO = 8
_STEP = 4
_ROUNDS = 2
"""The better of these counts: others can only slow it down."""


def counts(cores: int | None = None) -> list[int]:
    """The numbers of threads to try: all, but above eight every fourth, and all cores."""
    cores = cores or len(os.sched_getaffinity(0))
    tried = {*range(1, min(cores, _ALL_UP_TO) + 1), *range(_ALL_UP_TO, cores, _STEP), cores}
    return sorted(each for each in tried if each <= cores)


def sweep(
    load: Load, folder: Path, prompt_tokens: int, tokens: int, progress: Progress
) -> OperatingPoints:
    """Measure the engine directly with what edged's worker was told to load, one prompt at a time.

    Raises ``EdgedError`` where it fails.
    """
    engine = Direct(lambda: load, folder)
    points = []
    try:
        engine.start()
        (sample,) = engine.ask([prompts.prompt(prompts.SAMPLE_WORDS, turn=-1, client=0)], 2)
        words = prompts.words_for(prompt_tokens, sample.prompt_tokens)
        for threads in counts():
            progress(f"{threads} threads")
            with measured_watts() as power:
                turns = [
                    engine.ask(
                        [prompts.prompt(words, turn=-2 - each, client=threads)],
                        tokens,
                        threads=threads,
                    )
                    for each in range(_ROUNDS)
                ]
            rounds = [figures(turn) for turn in turns]
            points.append(
                MeasuredPoint(
                    threads=threads,
                    decode_tokens_per_s=max(each.decode_tokens_per_s or 0 for each in rounds),
                    prefill_tokens_per_s=max(each.prefill_tokens_per_s or 0 for each in rounds),
                    watts=power.watts,
                )
            )
    finally:
        engine.stop()
    assert load.model_path is not None
    return OperatingPoints(
        machine=read_machine().identity,
        measured_at=datetime.now(UTC),
        model=load.model_name or Path(load.model_path).name,
        weights_bytes=read_header(Path(load.model_path)).weights_bytes,
        points=tuple(points),
    )
