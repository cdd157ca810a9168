"""From all that was heard, and the daemon's book, to what was promised and not kept. Pure."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.clients import Heard, is_refusal
from benchmarks.chaos.prompts import Asked
from benchmarks.chaos.reference import TIE, Reference

Key = tuple[str, str]
REFUSALS = frozenset({"disk_full", "queue_full", "draining"})
"""What a prompt may be refused with for the moment."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken: which, of which prompt, and how."""

    promise: str
    key: Key
    words: str


@dataclass
class Verdict:
    """What was found, and what there was of everything."""

    violations: list[Violation] = field(default_factory=list)
    results: int = 0
    repeated_results: int = 0
    same_texts: int = 0
    ties: list[Key] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    executed_again: int = 0
    """Prompts that the worker was given more than once, for a death in between."""
    most_executions: int = 0
    whole_streams: int = 0
    """Streams without a gap from the first message to the result."""
    gaps: int = 0
    unreadable_lines: int = 0

    def blame(self, promise: str, key: Key, words: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(promise, key, words))


def judge(
    asked: Sequence[Asked],
    references: Sequence[Reference],
    heard: Iterable[Heard],
    book: Sequence[str],
) -> Verdict:
    """Everything that the messages and the book tell."""
    verdict = Verdict()
    known = {prompt.key: prompt for prompt in asked}
    streams: dict[Key, list[tuple[dict[str, Any], bytes]]] = defaultdict(list)
    for message in heard:
        key = (message.client, message.topic.rpartition("/")[2])
        reply = json.loads(message.payload)
        verdict.messages[reply["type"]] += 1
        if key not in known or reply["id"] != key[1]:
            verdict.blame("own answers only", key, f"heard {message.payload[:200]!r}")
            continue
        streams[key].append((reply, message.payload))
    for prompt, reference in zip(asked, references, strict=True):
        _judge_prompt(verdict, prompt, reference, streams[prompt.key])
    _judge_book(verdict, book, known)
    return verdict


def _judge_prompt(
    verdict: Verdict,
    prompt: Asked,
    reference: Reference,
    said: Sequence[tuple[dict[str, Any], bytes]],
) -> None:
    results: dict[bytes, dict[str, Any]] = {}
    was_accepted = False
    refusals_before: set[bytes] = set()
    for reply, payload in said:
        if is_refusal(reply):
            _judge_refusal(
                verdict, prompt.key, reply, late=was_accepted and payload not in refusals_before
            )
            refusals_before.add(payload)
        elif reply["type"] in ("done", "failed"):
            verdict.repeated_results += bool(results)
            results[payload] = reply
        elif reply["type"] == "accepted":
            was_accepted = True
    if not results:
        verdict.blame("one result", prompt.key, f"none among {len(said)} messages")
        return
    if len(results) > 1:
        texts = " and ".join(payload.decode()[-400:] for payload in results)
        verdict.blame("repeats byte by byte the same", prompt.key, texts)
    result = next(iter(results.values()))
    verdict.results += 1
    if result["type"] == "failed":
        verdict.blame("answered", prompt.key, f"{result['code']}: {result['error']}")
        return
    _judge_text(verdict, prompt.key, result["text"], reference)
    _judge_stream(verdict, prompt, result, [reply for reply, _ in said if not is_refusal(reply)])


def _judge_refusal(verdict: Verdict, key: Key, reply: Mapping[str, Any], *, late: bool) -> None:
    verdict.refusals[reply["code"]] += 1
    if reply["code"] not in REFUSALS:
        verdict.blame("no other refusals", key, f"{reply['code']}: {reply['error']}")
    elif late:
        verdict.blame("accepted is accepted", key, f"refused afterwards: {reply['code']}")


def _judge_text(verdict: Verdict, key: Key, text: str, reference: Reference) -> None:
    if text == reference.text:
        verdict.same_texts += 1
    elif (gap := reference.gap_at_parting(text)) < TIE:
        verdict.ties.append(key)
    else:
        verdict.blame(
            "the greedy text", key, f"{text!r} where {reference.text!r} was due, by {gap:.2f}"
        )


def _judge_stream(
    verdict: Verdict, prompt: Asked, result: Mapping[str, Any], said: Sequence[dict[str, Any]]
) -> None:
    runs: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    for reply in said:
        run, seq = runs[reply["restarts"]], reply["seq"]
        if run.setdefault(seq, reply) != reply:
            verdict.blame(
                "(id, restarts, seq) is one message",
                prompt.key,
                f"{run[seq]} and {reply}",
            )
    if max(runs) > result["restarts"]:
        verdict.blame("no stream after the result", prompt.key, f"of {sorted(runs)}")
    for restarts, run in runs.items():
        text = _joined(run)
        if not result["text"].startswith(text):
            verdict.blame(
                "deltas join to the text",
                prompt.key,
                f"restart {restarts}: {text!r}, and the text is {result['text']!r}",
            )
    last = runs[result["restarts"]]
    if set(last) != set(range(result["seq"] + 1)):
        verdict.gaps += 1
        return
    verdict.whole_streams += 1
    if prompt.streams and _joined(last) != result["text"]:
        verdict.blame(
            "deltas join to the text",
            prompt.key,
            f"without a gap they are {_joined(last)!r}, and the text is {result['text']!r}",
        )


def _joined(run: Mapping[int, Mapping[str, Any]]) -> str:
    """The deltas before the first gap."""
    parts = []
    for seq in range(len(run)):
        reply = run.get(seq)
        if reply is None:
            break
        if reply["type"] == "delta":
            parts.append(reply["text"])
    return "".join(parts)


def _judge_book(verdict: Verdict, book: Sequence[str], known: Mapping[Key, Asked]) -> None:
    """In the order written: one daemon at a time writes it."""
    committed: set[Key] = set()
    executions: Counter[Key] = Counter()
    for text in book:
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:  # its writer was killed
            verdict.unreadable_lines += 1
            continue
        key = (line["client"], line["id"])
        if line["what"] == "committed":
            if key in committed:
                verdict.blame("committed once", key, f"again by process {line['pid']}")
            committed.add(key)
        else:
            executions[key] += 1
            if key in committed:
                verdict.blame(
                    "not executed after its result", key, f"by process {line['pid']}, {line}"
                )
    verdict.executions = executions.total()
    verdict.executed_again = sum(count > 1 for count in executions.values())
    verdict.most_executions = max(executions.values(), default=0)
    for key in known.keys() - executions.keys():
        verdict.blame("the book is whole", key, "the worker was never given it")
