"""Where on the bus what happens: topic names, and where a prompt may direct its replies."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edged.settings import NAME_PATTERN

ANONYMOUS = "anonymous"
MAX_REPLY_TOPIC_BYTES = 512
MAX_REPLY_TOPIC_LEVELS = 32  # brokers end the connection of who publishes much deeper ones

_NAME = re.compile(NAME_PATTERN)
# U+FDD0…U+FDEF; the last two of every plane are told by their low bits.
_NONCHARACTERS = range(0xFDD0, 0xFDF0)


@dataclass(frozen=True)
class Topics:
    """The topics of one node, and of the pools that it belongs to, under one root."""

    root: str
    node: str
    pools: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        return f"{self.root}/{self.node}/status"

    @property
    def card(self) -> str:
        return f"{self.root}/{self.node}/card"

    @property
    def state(self) -> str:
        return f"{self.root}/{self.node}/state"

    @property
    def rejected(self) -> str:
        return f"{self.root}/{self.node}/rejected"

    def prompt(self, client: str | None = None) -> str:
        """Where a client publishes prompts; without one, the anonymous short topic."""
        return f"{self.root}/{self.node}/prompt" + (f"/{client}" if client else "")

    def cancel(self, client: str | None = None) -> str:
        """Where a client publishes cancels."""
        return f"{self.root}/{self.node}/cancel" + (f"/{client}" if client else "")

    def completion(self, client: str, prompt_id: str) -> str:
        """Where replies go unless the prompt says otherwise."""
        return f"{self.root}/{self.node}/completion/{client}/{prompt_id}"

    def subscriptions(self, *, require_client: bool) -> list[str]:
        """What a node listens to."""
        named = [self.prompt("+"), self.cancel("+")]
        return named if require_client else [self.prompt(), self.cancel(), *named]

    def pool_prompt(self, pool: str, client: str | None = None) -> str:
        """Where a client publishes prompts for whichever node of a pool can answer."""
        return f"{self.root}/pool/{pool}/prompt" + (f"/{client}" if client else "")

    def shares(self, *, require_client: bool) -> list[str]:
        """What a node of its pools listens to; the broker hands each prompt to one of them."""
        clients = ["+"] if require_client else [None, "+"]
        return [
            f"$share/edged-{pool}/{self.pool_prompt(pool, client)}"
            for pool in self.pools
            for client in clients
        ]

    def parse(self, topic: str) -> tuple[Literal["prompt", "cancel"], str | None] | None:
        """What a topic is for, and its client level; ``None`` if it is not ours."""
        root, node = f"{self.root}/", self.node
        if not topic.startswith(root):
            return None
        match topic.removeprefix(root).split("/"):
            case [level, "prompt" | "cancel" as kind] if level == node:
                return kind, None
            case [level, "prompt" | "cancel" as kind, client] if level == node:
                return kind, client
            case ["pool", pool, "prompt"] if pool in self.pools:
                return "prompt", None
            case ["pool", pool, "prompt", client] if pool in self.pools:
                return "prompt", client
        return None


def is_name(level: str) -> bool:
    """Whether a level is a node's, pool's or client's name."""
    return _NAME.fullmatch(level) is not None


def is_clean(text: str) -> bool:
    """Whether MQTT takes the text as a string: brokers disconnect who sends other characters."""
    # Most are ASCII, which one look decides.
    return (text.isascii() and text.isprintable()) or not any(
        unicodedata.category(character) in ("Cc", "Cs")
        or ord(character) in _NONCHARACTERS
        or ord(character) & 0xFFFE == 0xFFFE
        for character in text
    )


def is_level(text: str) -> bool:
    """Whether the text can be one level of a topic."""
    return bool(text) and not set(text) & set("+#/") and is_clean(text)


def may_reply(topic: str, *, prefixes: Iterable[str], root: str, client: str) -> bool:
    """Whether this client may direct replies to this topic.

    A prefix is allowed topic levels, ``+`` standing for any one, ``{root}`` and
    ``{client}`` filled in; the topic has to go on below it.
    """
    levels = topic.split("/")
    if (
        len(topic) > MAX_REPLY_TOPIC_BYTES  # before every character of a megabyte is looked at
        or topic.startswith("$")
        or not all(is_level(level) for level in levels)
        or len(topic.encode()) > MAX_REPLY_TOPIC_BYTES
        or len(levels) > MAX_REPLY_TOPIC_LEVELS
    ):
        return False
    for prefix in prefixes:
        filled = prefix.replace("{root}", root).replace("{client}", client)
        wanted = filled.rstrip("/").split("/")
        if len(levels) > len(wanted) and all(
            want in ("+", level) for want, level in zip(wanted, levels, strict=False)
        ):
            return True
    return False
