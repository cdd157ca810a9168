"""From a conversation to the token ids that the model was trained to see.

The template of the file is used when it can be trusted with every message, else Phi-3's
own. What a requester wrote is never parsed for special tokens: the template is rendered
around place holders, and only the text between them may hold ``<|user|>`` and its like.
"""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edged.engine.protocol import ChatSpec, Engine
from edged.errors import EngineUnavailable, InvalidRequest
from edged.messages import ChatMessage

# Private-use characters, so that no template can contain them by accident.
_HOLDER = re.compile("\ue0f0(\\d+)\ue0f1")
_SPECIAL_LIKE = re.compile(r"<\|[A-Za-z0-9_]{1,32}\|>")
RENDER_S = 2.0
_PHI3_SPECIALS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

# What llama.cpp skips after such a token: the C locale's white space, no more.
_SWALLOWED = " \t\n\v\f\r"

_PROBE = (
    ChatMessage("system", "probe"),
    ChatMessage("user", "probe"),
    ChatMessage("assistant", "probe"),
    ChatMessage("user", "probe"),
)


@dataclass(frozen=True)
class Segment:
    """A stretch of the rendered conversation; only the template's own is ``trusted``."""

    text: str
    trusted: bool


class ChatEncoder:
    """Encodes conversations for one engine."""

    def __init__(self, engine: Engine) -> None:
        """Raises ``EngineUnavailable`` where no template fits this vocabulary."""
        self._engine = engine
        self._template = _usable_template(engine.chat)
        missing = [
            special
            for special in _PHI3_SPECIALS
            if len(engine.tokenise(special, parse_special=True)) != 1
        ]
        self._knows_phi3 = not missing
        self._posing = _posing_texts(engine)
        # Phi-3's special tokens are registered so that white space after them vanishes.
        self._specials_swallow_space = engine.tokenise(
            "<|user|>\n\na", parse_special=True
        ) == engine.tokenise("<|user|>a", parse_special=True)
        # SentencePiece puts a space before the first word, which an answer does not begin with.
        first = engine.tokenise("a", parse_special=False)[:1]
        self.answer_begins_with_space = bool(first) and engine.token_bytes(first[0])[:1] == b" "
        if self._template is None and missing:
            raise EngineUnavailable(
                f"{engine.model_name} has no usable chat template, and its vocabulary lacks "
                f"{', '.join(missing)} for Phi-3's; choose a chat model of the Phi family"
            )

    @property
    def uses_file_template(self) -> bool:
        """Whether the file's own template is used rather than Phi-3's."""
        return self._template is not None

    def encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids from BOS to where the answer begins.

        Raises ``InvalidRequest`` for a conversation that the model's format cannot hold.
        """
        chat = self._engine.chat
        ids = [] if chat.bos_id is None else [chat.bos_id]
        for segment in self._segments(messages):
            if segment.trusted:
                ids += self._engine.tokenise(segment.text, parse_special=True)
            else:
                ids += self._encode_content(segment.text)
        return ids

    def beginning(self, system_prompt: str) -> list[int]:
        """The token ids that every conversation under ``system_prompt`` begins with."""
        either, other = (
            self.encode((ChatMessage("system", system_prompt), ChatMessage("user", said)))
            for said in ("a", "b")
        )
        pairs = zip(either, other, strict=False)
        return either[: next((at for at, (one, two) in enumerate(pairs) if one != two), 0)]

    def _encode_content(self, text: str) -> list[int]:
        if self._specials_swallow_space:
            text = text.lstrip(_SWALLOWED)
        ids: list[int] = []
        for part in self._posing.split(text) if self._posing else [text]:
            # One that poses is cut, so that its halves are only text.
            halves = [part[:1], part[1:]] if self._posing and self._posing.match(part) else [part]
            for half in filter(None, halves):
                ids += self._engine.tokenise(half, parse_special=False)
        return ids

    def _segments(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        if self._template is None:
            return render_phi3(messages)
        try:
            return _render(self._template, self._engine.chat, messages)
        except Exception as error:
            # A template is a program of whoever made the file: anything may come out of it.
            if self._knows_phi3:
                return render_phi3(messages)
            raise InvalidRequest(
                f"the model's chat template cannot hold this conversation: {error}",
                details={"field": "messages"},
            ) from error


def render_phi3(messages: Sequence[ChatMessage]) -> list[Segment]:
    """Phi-3's published chat format, special tokens and all."""
    segments: list[Segment] = []
    for message in messages:
        segments += [
            Segment(f"<|{message.role}|>\n", trusted=True),
            Segment(message.content, trusted=False),
            Segment("<|end|>\n", trusted=True),
        ]
    return [*segments, Segment("<|assistant|>\n", trusted=True)]


def _posing_texts(engine: Engine) -> re.Pattern[str] | None:
    """Special tokens that a requester could write, since the vocabulary has them as user-defined.

    Older conversions of Phi-3 do that. Tokenizers find user-defined tokens in any text.
    """
    in_template = _SPECIAL_LIKE.findall(engine.chat.template or "")
    posing = [
        special
        for special in dict.fromkeys((*_PHI3_SPECIALS, *in_template))
        if set(engine.tokenise(special, parse_special=True))
        <= set(engine.tokenise(special, parse_special=False))
        and len(engine.tokenise(special, parse_special=True)) == 1
    ]
    return re.compile(f"({'|'.join(map(re.escape, posing))})") if posing else None


def _usable_template(chat: ChatSpec) -> Template | None:
    """The file's template if it renders a conversation without losing a message."""
    if chat.template is None:
        return None
    try:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(chat.template)
        _render(template, chat, _PROBE)
    except Exception:  # noqa: BLE001 (see ChatEncoder._segments)
        return None
    return template


def _render(template: Template, chat: ChatSpec, messages: Sequence[ChatMessage]) -> list[Segment]:
    with _time_limit(RENDER_S):
        text = _render_text(template, chat, messages)
    # BOS is added once, as an id; a template that writes it too would double it.
    if chat.bos_id is not None and chat.bos_text and chat.bos_text in text:
        text = text.replace(chat.bos_text, "").lstrip()
    parts = _HOLDER.split(text)
    if [int(index) for index in parts[1::2]] != list(range(len(messages))):
        raise TemplateError("it loses, repeats or reorders messages")
    segments = [Segment(parts[0], trusted=True)]
    for index, after in zip(parts[1::2], parts[2::2], strict=True):
        segments.append(Segment(messages[int(index)].content, trusted=False))
        segments.append(Segment(after, trusted=True))
    return segments


def _render_text(template: Template, chat: ChatSpec, messages: Sequence[ChatMessage]) -> str:
    return template.render(
        messages=[
            {"role": message.role, "content": f"\ue0f0{index}\ue0f1"}
            for index, message in enumerate(messages)
        ],
        add_generation_prompt=True,
        bos_token=chat.bos_text,
        eos_token=chat.eos_text,
        raise_exception=_refuse,
    )


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End what runs too long; a template may loop for ever. Works in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: object) -> NoReturn:
        raise TemplateError(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _refuse(reason: str) -> NoReturn:
    raise TemplateError(reason)
