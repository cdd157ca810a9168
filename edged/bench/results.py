"""What a comparison found, as `edged bench --json` gives it (docs/bench.md). Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edged.bench.figures import Figures, Spread, Turn, figures, median_of, overall, ratios, spread
from edged.bench.rounds import Pair
from edged.engine.frames import Load
from edged.models.shape import ModelShape
from edged.models.sizing import kv_token_bytes, read_bytes_a_token

Json = dict[str, Any]


def of(pairs: Sequence[Pair], shape: ModelShape, load: Load, read_bytes_per_s: float) -> Json:
    """All but the conditions. Rounds beside a busy core stand apart, under ``contention``."""
    quiet = [pair for pair in pairs if not pair.is_busy]
    subjects = [pair.subject for pair in quiet]
    subject = overall(subjects)
    peers = _peers(quiet)
    found: Json = {
        "subject": _plain(subject),
        "peer": _plain(overall(peers)) if peers else None,
        "ratio": _ratio(quiet, "aggregate_tokens_per_s"),
        "decode_ratio": _ratio(quiet, "decode_tokens_per_s"),
        "worker": _worker(subjects),
        "added_first_token_ms": _added(subjects),
        "roofline": _roofline(shape, load, subject, subjects, read_bytes_per_s),
    }
    if len(quiet) < len(pairs):
        found["contention"] = _contention(pairs)
    found["rounds"] = [
        {
            "is_busy": pair.is_busy,
            "subject": _plain(figures(pair.subject)),
            "peer": _plain(figures(pair.peer)) if pair.peer is not None else None,
        }
        for pair in pairs
    ]
    return found


def _peers(pairs: Sequence[Pair]) -> list[Turn]:
    return [pair.peer for pair in pairs if pair.peer is not None]


def _ratio(pairs: Sequence[Pair], figure: str) -> Json | None:
    """Subject ÷ peer of one figure, pair by pair."""
    both = [(pair.subject, pair.peer) for pair in pairs if pair.peer is not None]
    return _plain_spread(
        ratios(
            (getattr(figures(subject), figure) for subject, _ in both),
            (getattr(figures(peer), figure) for _, peer in both),
        )
    )


def _worker(turns: Sequence[Turn]) -> Json:
    """Medians of the speeds that the worker itself measured, which the ``done`` message has."""
    speeds = [answer.worker for turn in turns for answer in turn if answer.worker is not None]
    return {
        "prefill_tokens_per_s": _rounded(median_of(each.prefill_tokens_per_s for each in speeds)),
        "decode_tokens_per_s": _rounded(median_of(each.decode_tokens_per_s for each in speeds)),
    }


def _added(turns: Sequence[Turn]) -> Json | None:
    """Of prompts that were alone in the node; ``None`` where there was none."""
    added = [answer.added for turn in turns for answer in turn if answer.added is not None]
    total = spread(each.total_ms for each in added)
    if total is None:
        return None
    return _plain(total) | {
        "before_ms": _rounded(median_of(each.before_ms for each in added)),
        "after_ms": _rounded(median_of(each.after_ms for each in added)),
        "prompts": len(added),
    }


def _roofline(
    shape: ModelShape,
    load: Load,
    subject: Figures,
    turns: Sequence[Turn],
    read_bytes_per_s: float,
) -> Json:
    """How much of the memory's speed decoding uses; all clients' steps read the weights once."""
    filled = median_of(
        answer.prompt_tokens + answer.completion_tokens / 2 for turn in turns for answer in turn
    )
    cache_bytes = kv_token_bytes(shape, load.kv_type) * (filled or 0) * len(turns[0])
    bytes_a_token = round(read_bytes_a_token(shape) + cache_bytes)
    speed = subject.decode_tokens_per_s
    return {
        "bytes_a_token": bytes_a_token,
        "read_bytes_per_s": round(read_bytes_per_s),
        "ratio": _rounded(speed * bytes_a_token / read_bytes_per_s) if speed else None,
    }


def _contention(pairs: Sequence[Pair]) -> Json:
    """Speeds beside another process that keeps a core busy, over those without, pair by pair."""
    quiet = [pair for pair in pairs if not pair.is_busy]
    beside = [pair for pair in pairs if pair.is_busy]

    def over(turns: Sequence[Turn], idle: Sequence[Turn]) -> Json | None:
        return _plain_spread(
            ratios(
                (figures(turn).decode_tokens_per_s for turn in turns),
                (figures(turn).decode_tokens_per_s for turn in idle),
            )
        )

    subject = [pair.subject for pair in beside]
    found: Json = {
        "subject": _plain(overall(subject)),
        "subject_busy_to_idle": over(subject, [pair.subject for pair in quiet]),
    }
    if peers := _peers(beside):
        found |= {
            "peer": _plain(overall(peers)),
            "peer_busy_to_idle": over(peers, _peers(quiet)),
            "ratio": _ratio(beside, "aggregate_tokens_per_s"),
            "decode_ratio": _ratio(beside, "decode_tokens_per_s"),
        }
    return found


def _plain(found: Figures | Spread) -> Json:
    """A dataclass of figures as JSON has it."""
    return {
        key: {inner: _rounded(each) for inner, each in value.items()}
        if isinstance(value, dict)
        else _rounded(value)
        for key, value in asdict(found).items()
    }


def _plain_spread(found: Spread | None) -> Json | None:
    return None if found is None else _plain(found)


def _rounded(value: float | None) -> float | None:
    """Four digits are more than any of this is worth."""
    return None if value is None else float(f"{value:.4g}")
