"""Every failure that edged tells someone of.

EdgedError                     one line on stderr, exit code 1
├── ConfigError                a setting is wrong; names it                       exit 2
├── ModelFileError             weights that must not reach native code            exit 3
├── EngineUnavailable          no engine can serve this model; says what to install  exit 4
├── BrokerError                the broker cannot be reached or refuses us         exit 5
├── PullError                  a model could not be fetched; says what to do      exit 6
└── PromptFailure              answered to the requester as a ``failed`` message
    ├── InvalidRequest         400  invalid_request
    ├── ReplyTopicForbidden    403  reply_topic_forbidden
    ├── UnknownModel           404  unknown_model
    ├── Expired                408  expired
    ├── DuplicateConflict      409  duplicate_conflict
    ├── PromptTooLong          413  prompt_too_long
    ├── QueueFull              429  queue_full             retry later
    ├── ClientQuota            429  client_quota           retry later
    ├── Cancelled              499  cancelled
    ├── InternalFailure        500  internal
    ├── EngineFailed           500  engine_failed          retry later, unless the model is refused
    ├── Overheated             503  overheated             retry later
    ├── Draining               503  draining               retry later
    ├── OutOfMemory            507  out_of_memory          retry later
    └── DiskFull               507  disk_full              retry later
"""

from collections.abc import Mapping
from typing import ClassVar

DetailValue = int | float | str | None


class EdgedError(Exception):
    """A failure that edged knows and can explain in one sentence."""

    exit_code: ClassVar[int] = 1


class ConfigError(EdgedError):
    """A setting is unknown, malformed or out of range; the message names it."""

    exit_code = 2


class ModelFileError(EdgedError):
    """A weights file is truncated, malformed or of a kind that cannot be loaded."""

    exit_code = 3


class EngineUnavailable(EdgedError):
    """No installed engine can serve the model; the message says what to install."""

    exit_code = 4


class BrokerError(EdgedError):
    """The MQTT broker cannot be reached, or refused the connection."""

    exit_code = 5


class PullError(EdgedError):
    """A model could not be fetched into the store; what has arrived may be kept."""

    exit_code = 6


class PromptFailure(EdgedError):
    """A prompt that cannot be answered; becomes the terminal ``failed`` message.

    ``details`` carries the numbers (needed, available, limit) and the offending
    ``field`` where there is one; ``retry_after_s`` is in seconds.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        error: str,
        *,
        retry_after_s: float | None = None,
        retryable: bool | None = None,
        details: Mapping[str, DetailValue] | None = None,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after_s = retry_after_s
        self.may_retry = type(self).retryable if retryable is None else retryable
        self.details: dict[str, DetailValue] = dict(details or {})


class InvalidRequest(PromptFailure):
    """The payload is not a prompt of the wire protocol; ``details`` names the field."""

    code = "invalid_request"
    status = 400


class ReplyTopicForbidden(PromptFailure):
    """The requester asked for replies where it may not direct them."""

    code = "reply_topic_forbidden"
    status = 403


class UnknownModel(PromptFailure):
    """The prompt asserts a model that is not the one being served."""

    code = "unknown_model"
    status = 404


class Expired(PromptFailure):
    """The deadline passed before the prompt was started."""

    code = "expired"
    status = 408


class DuplicateConflict(PromptFailure):
    """The same client uses an id again, with another body."""

    code = "duplicate_conflict"
    status = 409


class PromptTooLong(PromptFailure):
    """The prompt and its answer do not fit the context; both counts are in ``details``."""

    code = "prompt_too_long"
    status = 413


class QueueFull(PromptFailure):
    """As many prompts wait already as the operator allows."""

    code = "queue_full"
    status = 429
    retryable = True


class ClientQuota(PromptFailure):
    """A client has as many prompts or tokens as the operator gives one."""

    code = "client_quota"
    status = 429
    retryable = True


class Cancelled(PromptFailure):
    """The requester cancelled a prompt that had not started."""

    code = "cancelled"
    status = 499


class InternalFailure(PromptFailure):
    """A defect of edged itself; the log has the traceback."""

    code = "internal"
    status = 500
    retryable = True


class EngineFailed(PromptFailure):
    """The engine died under the prompt, or the model cannot be served."""

    code = "engine_failed"
    status = 500
    retryable = True


class OutOfMemory(PromptFailure):
    """No model fits what is available now; needed and available are in ``details``."""

    code = "out_of_memory"
    status = 507
    retryable = True


class DiskFull(PromptFailure):
    """The prompt cannot be written down, so nothing can be promised about it."""

    code = "disk_full"
    status = 507
    retryable = True


class Overheated(PromptFailure):
    """The board is too hot to work; the temperature is in ``details``."""

    code = "overheated"
    status = 503
    retryable = True


class Draining(PromptFailure):
    """The daemon is stopping."""

    code = "draining"
    status = 503
    retryable = True
