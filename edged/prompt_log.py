"""What becomes of prompts, in the log: never their words, always whose they were.

The fields are for ``journalctl``; see ``edged.telemetry.journal``.
"""

import logging
from typing import Final

from edged.errors import PromptFailure
from edged.messages import Prompt, Usage
from edged.minute_log import MinuteLog

log = logging.getLogger(__name__)

OURS: Final = 500
"""From this status on a failure is the node's, and worth a warning."""

_refusals = MinuteLog(log, "refused %d prompts; the last: %s")


def answered(prompt: Prompt, usage: Usage, took_s: float, how: str) -> None:
    """To the end, or to where it was stopped; ``how`` is the ``finish_reason``."""
    log.info(
        "prompt %s of %s: %d tokens after %d in %.1f s, %s",
        *(prompt.id, prompt.client, usage.completion_tokens, usage.prompt_tokens, took_s, how),
        extra=_fields(prompt),
    )


def failed(prompt: Prompt, failure: PromptFailure) -> None:
    """After it was accepted."""
    log.log(
        logging.WARNING if failure.status >= OURS else logging.INFO,
        "prompt %s of %s failed: %s",
        *(prompt.id, prompt.client, failure.code),
        extra={**_fields(prompt), "EDGED_CODE": failure.code},
    )


def refused(prompt: Prompt, failure: PromptFailure) -> None:
    """Before it was accepted; who floods us does not flood the log."""
    _refusals.count(
        f"{failure.code}, of {prompt.client}",
        extra={**_fields(prompt), "EDGED_CODE": failure.code},
    )


def _fields(prompt: Prompt) -> dict[str, str]:
    return {"EDGED_PROMPT_ID": prompt.id, "EDGED_CLIENT": prompt.client}
