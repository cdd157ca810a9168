"""The nodes that are fuzzed: real transports, with a list in place of the broker.

What each may publish is written here a second time, from docs/wire-protocol.md and not from the
code under test.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from edged.messages import Origin, Prompt
from edged.minute_log import MinuteLog
from edged.settings import Settings
from edged.transports.mqtt import MqttTransport
from edged.transports.outgoing import Publish

PROTOCOL = Path(__file__).parents[2] / "docs/wire-protocol.md"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ANYTHING_BELOW = "(?:/[^/+#]+)+"


class Bus:
    """Stands where the connection does, and keeps what is published."""

    def __init__(self) -> None:
        self.published: list[Publish] = []

    def publish(self, message: Publish, _delivered: Callable[[], None] | None = None) -> None:
        """Keep it."""
        self.published.append(message)

    def look(self) -> None:
        """There is nothing to read."""


class Taker:
    """Stands where the pipeline does, and keeps what is handed to it."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Prompt, Origin]] = []
        self.cancelled: list[tuple[str, str]] = []

    def submit(self, prompt: Prompt, origin: Origin) -> None:
        """Keep it."""
        self.submitted.append((prompt, origin))

    def cancel(self, client: str, prompt_id: str) -> bool:
        """Keep it; half of them are known."""
        self.cancelled.append((client, prompt_id))
        return len(prompt_id) % 2 == 0


class Log(logging.Handler):
    """While it is entered, keeps what is logged, and lets none of it out."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._logger = logging.getLogger("edged")

    def __enter__(self) -> Self:
        self.lines.clear()
        self._logger.addHandler(self)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(record.getMessage())


LOG = Log()


class EveryTime(MinuteLog):
    """One that leaves no line out, so that each is judged."""

    def count(self, what: str, extra: Mapping[str, str] | None = None) -> None:
        """Say it."""
        self._next_s = 0.0
        super().count(what, extra)


@dataclass(frozen=True)
class Asked:
    """What a topic asks for, and of whom; ``client`` is ``None`` for a name that is none."""

    kind: str
    client: str | None


@dataclass(frozen=True)
class Node:
    """A node, and what may be asked of it and answered by it.

    ``replies`` are patterns of reply topics, in which ``CLIENT`` stands for who asked.
    """

    settings: Settings
    replies: tuple[str, ...]
    bus: Bus = field(default_factory=Bus)
    taker: Taker = field(default_factory=Taker)
    transport: MqttTransport = field(init=False)

    def __post_init__(self) -> None:
        transport = MqttTransport(self.settings, self.taker)
        transport._connection = self.bus  # type: ignore[assignment] # noqa: SLF001 (no broker here)
        transport._rejections = EveryTime(  # noqa: SLF001 (as the line before)
            logging.getLogger("edged"), "rejected %d messages; the last: %s"
        )
        object.__setattr__(self, "transport", transport)

    @property
    def rejected(self) -> str:
        """The topic for what cannot be answered."""
        return f"{self.settings.mqtt.topic_root}/{self.settings.node}/rejected"

    def asked(self, topic: str) -> Asked | None:
        """What a topic means to this node; ``None`` for nothing."""
        mqtt = self.settings.mqtt
        root = re.escape(mqtt.topic_root)
        pools = "|".join(re.escape(pool) for pool in mqtt.pools)
        places = [rf"{re.escape(self.settings.node)}/(?P<kind>prompt|cancel)"]
        if pools:
            places.append(rf"pool/(?:{pools})/(?P<kind>prompt)")
        for place in places:
            if found := re.fullmatch(rf"{root}/{place}(?:/(?P<client>[^/]*))?", topic, re.DOTALL):
                client = found["client"]
                if client is None:
                    return Asked(found["kind"], None if mqtt.require_client else "anonymous")
                return Asked(found["kind"], client if NAME.fullmatch(client) else None)
        return None

    def may_answer_at(self, topic: str, client: str) -> bool:
        """Whether the replies to a client may go there."""
        return (
            len(topic.encode()) <= 512
            and not any(_is_refused_by_brokers(character) for character in topic)
            and any(
                re.fullmatch(pattern.replace("CLIENT", re.escape(client)), topic)
                for pattern in self.replies
            )
        )


def _is_refused_by_brokers(character: str) -> bool:
    """Control characters, surrogates and the noncharacters of Unicode [MQTT-1.5.4]."""
    number = ord(character)
    return (
        number < 0x20
        or 0x7F <= number < 0xA0
        or 0xD800 <= number < 0xE000
        or 0xFDD0 <= number < 0xFDF0
        or number % 0x10000 >= 0xFFFE
    )


def _node(replies: tuple[str, ...], **settings: Any) -> Node:
    return Node(Settings(**settings), replies)


NODES: Mapping[str, Node] = {
    "plain": _node(
        (rf"edged/v1/[^/+#]+/completion/CLIENT{ANYTHING_BELOW}",),
        node="n",
        mqtt={"pools": ["den"]},
    ),
    "talkative": _node(
        (
            rf"edged/v1/[^/+#]+/completion/CLIENT{ANYTHING_BELOW}",
            rf"home/CLIENT{ANYTHING_BELOW}",
            rf"[^/+#$][^/+#]*/shared{ANYTHING_BELOW}",
        ),
        node="n",
        mqtt={
            "text_replies": True,
            "reply_prefixes": ["{root}/+/completion/{client}/", "home/{client}/", "+/shared/"],
        },
        chat={"system_prompt": "Be brief.", "user_template": "{date} {time}: {prompt}"},
    ),
    "strict": _node(
        (rf"haus/küche/[^/+#]+/completion/CLIENT{ANYTHING_BELOW}",),
        node="n",
        mqtt={"topic_root": "haus/küche", "require_client": True, "max_payload_bytes": 1024},
        sampling={"max_tokens_limit": 512, "temperature_limit": 1.0},
    ),
}


def codes() -> Mapping[str, int]:
    """The codes of ``failed`` and their status, as the protocol's table has them."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", PROTOCOL.read_text("utf-8"), re.MULTILINE)
    return {code: int(status) for code, status in rows}


CODES = codes()
