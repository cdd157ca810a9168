"""Where and how a prompt is answered, also after a restart."""

import base64
import json
from dataclasses import dataclass
from typing import Any, Self

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Address:
    """Where and how a prompt is answered.

    ``topic`` is ``None`` where there is nowhere to answer. ``asked`` tells that the
    requester named the id or the topic, so that it can be expected to listen there.
    """

    id: str
    topic: str | None
    asked: bool
    correlation: bytes | None
    correlation_text: str | None
    plain: bool

    def dump(self) -> str:
        """As JSON, what is unset left out, for the spool."""
        fields: dict[str, Any] = dict(vars(self))
        if self.correlation is not None:
            fields["correlation"] = base64.b64encode(self.correlation).decode()
        kept = {name: value for name, value in fields.items() if value not in (None, False)}
        return _ENCODER.encode(kept)

    @classmethod
    def load(cls, text: str) -> Self:
        """What ``dump`` wrote, perhaps another version's. Raises ``ValueError`` for all else."""
        match json.loads(text):
            case {"id": str(prompt_id), "topic": str(topic), **rest}:
                pass
            case _:
                raise ValueError("it has no id or no topic")
        correlation, correlation_text = rest.get("correlation"), rest.get("correlation_text")
        return cls(
            id=prompt_id,
            topic=topic,
            asked=bool(rest.get("asked")),
            correlation=None if correlation is None else base64.b64decode(str(correlation)),
            correlation_text=None if correlation_text is None else str(correlation_text),
            plain=bool(rest.get("plain")),
        )
