"""What was asked, and what came of it: every id has to get exactly one terminal message."""

import json
import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soak.requests import Request

Key = tuple[str, str]
"""The client's level of the topic, and the prompt's id."""


@dataclass
class Entry:
    """One prompt that was published."""

    request: Request
    answering: threading.Event = field(default_factory=threading.Event)
    """Set by the first of its answer."""
    answering_s: float = math.inf
    """When that came, by CLOCK_MONOTONIC."""
    ended: threading.Event = field(default_factory=threading.Event)
    ended_s: float = math.inf
    terminals: set[bytes] = field(default_factory=set)
    """Different ones; more than one is a fault."""
    repeats: int = 0
    """Terminal messages that said the same once more."""
    reply: dict[str, Any] = field(default_factory=dict)
    """The first of the terminals."""

    @property
    def end(self) -> str | None:
        """The finish reason or the failure's code; ``None`` while there is no terminal."""
        return self.reply.get("finish_reason") or self.reply.get("code")

    def release(self) -> None:
        """Let everybody go on who waits for it."""
        self.answering.set()
        self.ended.set()

    def fault(self) -> str | None:
        """What is wrong with how it ended."""
        if self.end is None:
            return "no terminal message"
        if len(self.terminals) > 1:
            return f"{len(self.terminals)} different terminal messages"
        if self.end not in self.request.ends:
            return f"ended in {self.end}: {self.reply.get('error')}"
        text = self.reply.get("text")
        if self.end == "stop" and not self.request.is_right(text or ""):
            return f"the answer is not what was asked for: {text!r}"
        return None


class Ledger:
    """Filled by the clients that ask, and by the listener that hears every reply."""

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.did: Counter[str] = Counter()
        """What clients did beside asking: cancels, duplicates and the like."""
        self.unnamed_asked = 0
        """Prompts without an id, for which edged makes one."""
        self._unnamed_ended: dict[Key, set[bytes]] = {}
        self._ended = 0
        self.is_given_up = False
        """Nobody waits for anything any more."""
        self._changing = threading.Lock()

    def expect(self, key: Key, request: Request) -> Entry:
        """A prompt is about to be published."""
        with self._changing:
            entry = self.entries[key] = Entry(request)
            if self.is_given_up:
                entry.release()
            return entry

    def expect_unnamed(self) -> None:
        """A prompt without an id is about to be published."""
        with self._changing:
            self.unnamed_asked += 1

    def note(self, action: str) -> None:
        """A client has done something worth counting."""
        with self._changing:
            self.did[action] += 1

    def heard(self, key: Key, payload: bytes) -> None:
        """A reply has come."""
        reply = json.loads(payload)
        is_terminal = reply["type"] in ("done", "failed")
        with self._changing:
            entry = self.entries.get(key)
            if entry is None:
                if is_terminal:
                    self._unnamed_ended.setdefault(key, set()).add(payload)
            elif is_terminal:
                self._ended += not entry.terminals
                entry.repeats += bool(entry.terminals)
                entry.terminals.add(payload)
                entry.reply = entry.reply or reply
                entry.ended_s = min(entry.ended_s, time.monotonic())
                entry.release()
            elif reply["type"] == "delta":
                entry.answering_s = min(entry.answering_s, time.monotonic())
                entry.answering.set()

    @property
    def asked(self) -> int:
        """Prompts published, with and without an id."""
        return len(self.entries) + self.unnamed_asked

    @property
    def open(self) -> int:
        """Prompts without a terminal message."""
        return self.asked - self._ended - len(self._unnamed_ended)

    def give_up(self) -> None:
        """Nobody is to wait any longer."""
        with self._changing:
            self.is_given_up = True
            for entry in self.entries.values():
                entry.release()

    def faults(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = [
            f"{client}/{prompt_id} ({entry.request.kind}): {fault}"
            for (client, prompt_id), entry in self.entries.items()
            if (fault := entry.fault()) is not None
        ]
        found += [
            f"{client}/{prompt_id} (without an id): {len(terminals)} different terminal messages"
            for (client, prompt_id), terminals in self._unnamed_ended.items()
            if len(terminals) > 1
        ]
        if len(self._unnamed_ended) != self.unnamed_asked:
            found.append(
                f"{self.unnamed_asked} prompts without an id got "
                f"{len(self._unnamed_ended)} terminal messages"
            )
        return found
