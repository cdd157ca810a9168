"""What must be so whatever came: `judge` says what the input was, or raises `Finding`."""

import json
import resource
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.fuzz.case import Case
from benchmarks.fuzz.nodes import CODES, LOG, NODES, Asked, Bus, Node
from edged.engine import frames
from edged.errors import InternalFailure
from edged.messages import (
    Accepted,
    Delta,
    Done,
    Failed,
    Prompt,
    Reply,
    Send,
    Timings,
    Usage,
    Waiting,
)
from edged.spool.codec import prompt_text, read_prompt, read_terminal, terminal_text
from edged.transports.address import Address
from edged.transports.outgoing import Publish, _properties

LIMIT_S = 1.0
"""Of processor time for one input."""
MEMORY_LIMIT_BYTES = 64 * 2**20
"""By so much one input may raise what this process has held at most."""
MAX_REFUSAL_BYTES = 16_384
"""Of a refusal with everything in it that is repeated of what was asked."""
MAX_SENTENCE = 1024
MAX_LOG_LINE = 1536
SAID = Done("", "stop", Usage(1, 0, 1), Timings(0.1, 0.2, None, 3.0), 1)


class Finding(Exception):
    """Something that must not be; ``kind`` tells it from others."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


@dataclass(frozen=True)
class Judged:
    """What became of an input, in a word or a code of the protocol, and what it took."""

    end: str
    cpu_s: float


def judge(case: Case) -> Judged:
    """Hand the input to its node and look at all that comes of it. Raises ``Finding``."""
    node = NODES[case.node]
    node.bus.published.clear()
    node.taker.submitted.clear()
    node.taker.cancelled.clear()
    acknowledged: list[None] = []
    held_before, before_s = _most_held_bytes(), time.process_time()
    try:
        with LOG:
            node.transport.received(case.incoming, lambda: acknowledged.append(None))
    except Exception as error:
        raise Finding(f"raises {_where(error)}", repr(error)) from error
    cpu_s = time.process_time() - before_s
    _demand(cpu_s < LIMIT_S, "slow", f"{cpu_s:.2f} s")
    held = _most_held_bytes() - held_before
    _demand(held < MEMORY_LIMIT_BYTES, "memory", f"{held / 2**20:.0f} MiB more at once")
    try:
        return Judged(_look(case, node, len(acknowledged)), cpu_s)
    except Finding:
        raise
    except Exception as error:
        # Spool, worker and broker are told of it by code that does not expect to fail.
        raise Finding(f"raises afterwards {_where(error)}", repr(error)) from error


def _look(case: Case, node: Node, acknowledged: int) -> str:
    """The end of it."""
    published, submitted = list(node.bus.published), node.taker.submitted
    asked = node.asked(case.topic)
    for line in LOG.lines:
        _demand(line.isprintable() and len(line) <= MAX_LOG_LINE, "log", repr(line))
    _demand(
        acknowledged == (0 if submitted else 1), "acknowledged", f"{acknowledged} times by itself"
    )
    _demand(len(submitted) <= 1, "submitted", f"{len(submitted)} times")
    if asked is None:
        _demand(not published and not submitted, "foreign topic", case.topic)
        return "not ours"
    if asked.client is None or case.retain or not case.readable:
        _demand(not submitted and not node.taker.cancelled, "no client", case.topic)
    if submitted:
        _demand(asked.kind == "prompt" and not published, "accepted", "and something beside it")
        prompt, origin = submitted[0]
        _check_prompt(prompt, case, asked, node)
        _check_stream(prompt, origin.send, origin.address, asked, node)
        return "accepted"
    if node.taker.cancelled:
        client, prompt_id = node.taker.cancelled[0]
        _demand(client == asked.client, "cancelled another's", client)
        _demand(bool(published) == (len(prompt_id) % 2), "cancel", "said and done differ")
        for message in published:
            _check_rejected(message, case, node)
        return "cancel"
    _demand(bool(published), "no answer", f"to {case.topic}")
    ends = [_check_refusal(message, case, asked, node) for message in published]
    return next((end for end in ends if end != "rejected"), "rejected")


def _check_prompt(prompt: Prompt, case: Case, asked: Asked, node: Node) -> None:
    sampling, limits = prompt.sampling, node.settings.sampling
    _demand(prompt.client == asked.client, "another's prompt", prompt.client)
    for holds, what in (
        (0 < len(prompt.id) <= 128, "id"),
        (bool(prompt.messages) and prompt.messages[-1].role == "user", "messages"),
        (1 <= sampling.max_tokens <= limits.max_tokens_limit, "max_tokens"),
        (0 <= sampling.temperature <= limits.temperature_limit, "temperature"),
        (sampling.top_k >= 0, "top_k"),
        (0 < sampling.top_p <= 1, "top_p"),
        (0 <= sampling.min_p < 1, "min_p"),
        (0.5 <= sampling.repeat_penalty <= 2, "repeat_penalty"),
        (0 <= sampling.seed < 2**53, "seed"),
        (len(sampling.stop) <= 8 and all(sampling.stop), "stop"),
        (0 <= prompt.priority <= 9, "priority"),
        (prompt.deadline_s is None or 0 <= prompt.deadline_s < 2**32, "deadline_s"),
        (prompt.session is None or 0 < len(prompt.session) <= 128, "session"),
        (len(prompt.grammar or "") <= 131_072, "grammar"),
        (len(case.payload) <= node.settings.mqtt.max_payload_bytes, "size"),
    ):
        _demand(holds, f"bounds of {what}", "")
    # What is promised is written down, read again after a crash, and handed to the worker.
    _demand(read_prompt(prompt_text(prompt), prompt.digest) == prompt, "spool", "reads another")
    frame = frames.Submit(1, prompt.messages, sampling, prompt.client, prompt.priority)
    _demand(
        frames.decode(frames.encode(frame)[frames.LENGTH.size :]) == frame, "frame", "reads another"
    )


def _check_stream(prompt: Prompt, send: Send, address: str, asked: Asked, node: Node) -> None:
    """Answer it with one message of each kind, now and as after a restart."""
    _demand(Address.load(address).dump() == address, "address", "reads another")
    text = prompt.messages[-1].content[:64]
    failed = Failed.of(InternalFailure("a defect"))
    done = Done(text, "stop", SAID.usage, SAID.timings, prompt.sampling.seed)
    replies = [
        Reply(prompt.id, number, 0, message)
        for number, message in enumerate(
            (
                Accepted("n", None, 0, None),
                Delta(text, 1),
                Waiting("nominal", "", None),
                done,
                failed,
            )
        )
    ]
    for reply in replies[-2:]:
        _demand(read_terminal(terminal_text(reply)) == reply, "spool", "reads another reply")
    now = _sent(send, replies, node.bus)
    later = _sent(node.transport.send_to(address), replies, node.bus)
    _demand(now == later, "after a restart", "the answer is another")
    _on_the_wire(now[0])
    for message in now:
        _check_topic(message, asked, node)
        if not node.settings.mqtt.text_replies:
            _demand(_json(message)["id"] == prompt.id, "id", "of another")


def _sent(send: Send, replies: list[Reply], bus: Bus) -> list[Publish]:
    bus.published.clear()
    for reply in replies:
        send(reply)
    return list(bus.published)


def _check_refusal(message: Publish, case: Case, asked: Asked, node: Node) -> str:
    """The code of a refusal, or ``rejected``."""
    _demand(len(message.payload) <= MAX_REFUSAL_BYTES, "long refusal", f"{len(message.payload)} B")
    if message.topic == node.rejected:
        _check_rejected(message, case, node)
        return "rejected"
    _check_topic(message, asked, node)
    _on_the_wire(message)
    if node.settings.mqtt.text_replies and not message.payload.lstrip().startswith(b"{"):
        code = message.payload.decode("utf-8").partition(":")[0]
        _demand(not message.payload or code in CODES, "code", code)
        return code or "rejected"
    reply = _json(message)
    _demand(reply["type"] == "failed", "type", reply["type"])
    _demand(CODES.get(reply["code"]) == reply["status"], "code", reply["code"])
    _demand(reply["code"] != "internal", "internal", reply["error"])
    _check_sentence(reply["error"])
    for value in reply["details"].values():
        _demand(not isinstance(value, str) or value.isprintable(), "details", repr(value))
        _demand(isinstance(value, int | float | str | None), "details", repr(value))
    code = reply["code"]
    assert isinstance(code, str)
    return code


def _check_rejected(message: Publish, case: Case, node: Node) -> None:
    _demand(message.topic == node.rejected, "topic", message.topic)
    _demand(len(message.payload) <= MAX_REFUSAL_BYTES, "long rejection", f"{len(message.payload)}")
    _on_the_wire(message)
    body = _json(message)
    _demand(body.keys() == {"reason", "topic", "client", "length"}, "rejected", repr([*body]))
    _demand(body["length"] == len(case.payload), "rejected", "its length")
    _check_sentence(body["reason"])


def _check_topic(message: Publish, asked: Asked, node: Node) -> None:
    assert asked.client is not None
    _demand(node.may_answer_at(message.topic, asked.client), "forbidden topic", message.topic)
    _demand(not message.retain, "retained reply", message.topic)


def _check_sentence(text: Any) -> None:
    _demand(isinstance(text, str) and text.isprintable(), "not printable", repr(text))
    _demand(0 < len(text) <= MAX_SENTENCE, "long sentence", text)


def _on_the_wire(message: Publish) -> None:
    """Whether paho can put it there; it raises where not."""
    _properties(message).pack()  # type: ignore[no-untyped-call]
    _demand(len(message.correlation or b"") <= 1024, "correlation", "is too long")


def _json(message: Publish) -> dict[str, Any]:
    try:
        body = json.loads(message.payload, parse_constant=_no_json)
    except ValueError as error:
        raise Finding("no JSON", f"{error}: {message.payload[:200]!r}") from None
    _demand(isinstance(body, dict), "no JSON object", repr(body))
    assert isinstance(body, dict)
    return body


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _demand(holds: object, kind: str, what: str) -> None:
    if not holds:
        raise Finding(kind, what)


def _where(error: Exception) -> str:
    """The kind of an exception, and the line of edged that it passed last."""
    frames_of_ours = (
        f"{frame.filename.rpartition('/')[2]}:{frame.name}"
        for frame in _innermost_first(error)
        if "/edged/" in frame.filename
    )
    return f"{type(error).__name__} in {next(frames_of_ours, 'nothing of ours')}"


def _innermost_first(error: Exception) -> Iterator[traceback.FrameSummary]:
    return reversed(traceback.extract_tb(error.__traceback__))


def _most_held_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
