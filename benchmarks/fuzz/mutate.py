"""Mutation that knows what it mutates: JSON as a tree, a topic as levels, the rest as bytes."""

import json
from collections.abc import Callable, MutableMapping, MutableSequence
from dataclasses import replace
from random import Random
from typing import Any

from benchmarks.fuzz.case import MAX_TOPIC_BYTES, Case
from benchmarks.fuzz.nodes import NODES
from benchmarks.fuzz.seeds import (
    BYTES,
    CONSTANTS,
    KEYS,
    NUMBERS,
    REPLY_TOPICS,
    TEXTS,
    TOPICS,
)

Container = MutableMapping[str, Any] | MutableSequence[Any]

CHANGES = (1, 1, 1, 2, 3, 4)
MANY = (2, 8, 9, 65, 130, 1001, 5000, 50_000)
"""How often something is repeated: around the limits, mostly."""
MAX_NODES = 5_000
"""Of a tree that is mutated as one; more would take longer than it is worth."""


class Mutator:
    """Changes cases; all that it draws comes from ``random``."""

    def __init__(self, random: Random, others: list[Case], max_bytes: int) -> None:
        """``others`` lend their parts; no payload becomes longer than ``max_bytes``."""
        self._random = random
        self._others = others
        self._max_bytes = max_bytes

    def mutated(self, case: Case) -> Case:
        """The case with one to four changes."""
        for _ in range(self._random.choice(CHANGES)):
            change = self._random.choices(
                (self._payload, self._bytes, self._properties, self._place), (12, 4, 3, 1)
            )[0]
            case = change(case)
        return replace(case, payload=case.payload[: self._max_bytes])

    def _payload(self, case: Case) -> Case:
        """As JSON where it is some."""
        try:
            tree = json.loads(case.payload)
        except (ValueError, RecursionError):
            return self._bytes(case)
        if not isinstance(tree, dict) or len(case.payload) > 20 * MAX_NODES:
            return self._bytes(case)
        change = self._random.choice(
            (self._set, self._set, self._set_key, self._drop, self._repeat, self._nest, self._graft)
        )
        change(tree)
        try:
            text = json.dumps(
                tree,
                ensure_ascii=self._random.random() < 0.5,
                separators=self._random.choice(((",", ":"), (", ", ": "))),
            )
        except (ValueError, RecursionError):
            return case
        return replace(case, payload=text.encode("utf-8", "surrogatepass"))

    def _containers(self, tree: Container) -> list[Container]:
        """All objects and lists of a tree, itself first."""
        found: list[Container] = [tree]
        for container in found:  # which grows meanwhile
            values = container.values() if isinstance(container, dict) else container
            found += [value for value in values if isinstance(value, dict | list)]
            if len(found) > MAX_NODES:
                break
        return found

    def _somewhere(self, tree: Container) -> tuple[Container, Any] | None:
        """A container that has something in it, and the key or index of one of its values."""
        full = [each for each in self._containers(tree) if each]
        if not full:
            return None
        container = self._random.choice(full)
        if isinstance(container, dict):
            return container, self._random.choice([*container])
        return container, self._random.randrange(len(container))

    def _set(self, tree: dict[str, Any]) -> None:
        if place := self._somewhere(tree):
            container, key = place
            container[key] = self._like(container[key])

    def _set_key(self, tree: dict[str, Any]) -> None:
        objects = [each for each in self._containers(tree) if isinstance(each, dict)]
        chosen = self._random.choice(objects)
        key = self._random.choice(KEYS if self._random.random() < 0.9 else TEXTS)
        chosen[key] = self._value()

    def _drop(self, tree: dict[str, Any]) -> None:
        if place := self._somewhere(tree):
            container, key = place
            del container[key]

    def _repeat(self, tree: dict[str, Any]) -> None:
        """The same many times: in a list, as keys, or in a string."""
        place = self._somewhere(tree)
        if place is None:
            return
        container, key = place
        value, times = container[key], self._random.choice(MANY)
        if len(str(value)) * times > self._max_bytes:
            return
        if isinstance(value, str | list):
            container[key] = value * times
        elif isinstance(value, dict) and value and self._random.random() < 0.5:
            first = next(iter(value.values()))
            value |= {f"k{number}": first for number in range(times)}
        else:
            container[key] = [value] * times

    def _nest(self, tree: dict[str, Any]) -> None:
        """The value many levels deeper."""
        place = self._somewhere(tree)
        if place is None:
            return
        container, key = place
        value, name = container[key], self._random.choice(KEYS)
        for _ in range(self._random.choice((1, 5, 31, 63, 65, 400))):
            value = [value] if self._random.random() < 0.3 else {name: value}
        container[key] = value

    def _graft(self, tree: dict[str, Any]) -> None:
        """A part of another payload."""
        try:
            other = json.loads(self._random.choice(self._others).payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(other, dict):
            return
        source, target = self._somewhere(other), self._somewhere(tree)
        if source and target:
            target[0][target[1]] = source[0][source[1]]

    def _value(self) -> Any:
        draw: Callable[[], Any] = self._random.choice(
            (
                lambda: self._random.choice(TEXTS),
                lambda: self._random.choice(NUMBERS),
                lambda: self._random.choice(CONSTANTS),
                lambda: [self._value() for _ in range(self._random.randint(0, 3))],
                lambda: {self._random.choice(KEYS): self._value()},
            )
        )
        return draw()

    def _like(self, value: Any) -> Any:
        """Mostly of the same type."""
        if self._random.random() < 0.3:
            return self._value()
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return self._random.choice((value + 1, -value, value >> 1, *NUMBERS))
        if isinstance(value, float):
            return self._random.choice((value / 2, -value, *NUMBERS))
        if isinstance(value, str):
            text = self._random.choice(TEXTS)
            at = self._random.randint(0, len(value))
            return self._random.choice((text, value[:at] + text + value[at:], value[at:]))
        return self._value()

    def _bytes(self, case: Case) -> Case:
        return replace(case, payload=self._changed(case.payload))

    def _changed(self, data: bytes) -> bytes:
        """A flipped, lost or doubled piece, or one of the dictionary's."""
        at = self._random.randint(0, len(data))
        length = min(self._random.choice((1, 1, 2, 4, 16, 200)), len(data) - at)
        piece = data[at : at + length]
        match self._random.randrange(6):
            case 0:
                return data[:at] + self._random.choice(BYTES) + data[at:]
            case 1:
                return data[:at] + self._random.choice(BYTES) + data[at + length :]
            case 2:
                return data[:at] + data[at + length :]
            case 3:
                return data[:at] + piece * self._random.choice(MANY[:5]) + data[at:]
            case 4:
                return data[:at] + self._random.randbytes(length) + data[at + length :]
            case _:
                return data[:at]

    def _properties(self, case: Case) -> Case:
        draw = self._random.random()
        if draw < 0.4:
            topic = self._random.choice((None, *REPLY_TOPICS, case.response_topic))
            return replace(case, response_topic=topic and self._topic(topic))
        if draw < 0.7:
            data = self._random.choice((None, b"", b"id", b"x" * 1024, case.correlation))
            if data is None or self._random.random() < 0.3:
                return replace(case, correlation=data)
            return replace(case, correlation=self._changed(data)[:MAX_TOPIC_BYTES])
        if draw < 0.9:
            expiry_s = self._random.choice((None, 0, 1, 60, 2**31, 2**32 - 1))
            return replace(case, expiry_s=expiry_s)
        if draw < 0.98:
            return replace(case, retain=not case.retain)
        return replace(case, readable=not case.readable)

    def _place(self, case: Case) -> Case:
        """Another node, or another topic."""
        node = self._random.choice([*NODES]) if self._random.random() < 0.3 else case.node
        topic = self._random.choice((*TOPICS[node], case.topic))
        return replace(case, node=node, topic=self._topic(topic) or topic)

    def _topic(self, topic: str) -> str:
        """Its levels changed, two times of five; within what MQTT has room for."""
        levels = topic.split("/")
        at = self._random.randrange(len(levels))
        word = self._random.choice((*TEXTS, *KEYS, "completion", "cancel", "pool", "n", "+", "$x"))
        match self._random.randrange(12):
            case 0:
                levels[at] = word
            case 1:
                levels.insert(at, word)
            case 2:
                del levels[at]
            case 3:
                levels[at] += word
            case 4:
                levels += [word] * self._random.choice((1, 30, 300))
        changed = "/".join(levels).encode("utf-8", "ignore")
        return changed[: self._random.choice((200, 511, 512, 513, 65_000))].decode(
            "utf-8", "ignore"
        )
