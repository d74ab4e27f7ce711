"""The one error tree: each refusal has a code, an HTTP status and a word on whether to try again. Knows no transport.

HeadraceError
├── InvalidRequest 400          ├── JobNotFound 404            ├── StoreUnavailable 503 (retryable)
│   ├── ContextLengthExceeded   ├── JournalExpired 410         │   ├── BlobsUnavailable
│   ├── UnknownParameter        ├── IdempotencyConflict 409    │   └── LedgerUnavailable
│   ├── MessageUnreadable       ├── PayloadTooLarge 413        ├── QueueFull 503 (retryable)
│   └── GrammarError            │                              ├── NoProgress 504 (retryable)
├── InvalidApiKey 401           ├── RateLimitExceeded 429      ├── EngineFailure 500 (retryable)
├── Forbidden 403               ├── RevisionGone 409           ├── Poison 500
├── ModelNotFound 404           ├── JobCancelled 499           ├── RetriesExhausted 500
├── BlobNotFound 410            ├── BlobDamaged 500            ├── DeadlineExceeded 504
└── SetupError (a machine, a file or a setting is not as it must be; never sent over HTTP)
"""

from dataclasses import dataclass
from typing import ClassVar


class HeadraceError(Exception):
    """Root of the tree.

    `message` says what and why; `next_step`, where there is one, what to do about it; `param` names the field at fault.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        next_step: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.next_step = next_step
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.explain()

    def info(self) -> "ErrorInfo":
        """The part of this error that a record, an event and a reply carry."""
        return ErrorInfo(self.code, self.message, self.retryable)

    def explain(self) -> str:
        """Message and next step in one line."""
        return f"{self.message} {self.next_step}" if self.next_step else self.message


class InvalidRequest(HeadraceError):
    code = "invalid_request"
    status = 400


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class UnknownParameter(InvalidRequest):
    code = "unknown_parameter"


class MessageUnreadable(InvalidRequest):
    """A ledger holds a message that is no job. It is put aside; no client is waiting to be told."""

    code = "message_unreadable"


class GrammarError(InvalidRequest):
    code = "grammar_error"


class InvalidApiKey(HeadraceError):
    code = "invalid_api_key"
    status = 401


class Forbidden(HeadraceError):
    code = "forbidden"
    status = 403


class ModelNotFound(HeadraceError):
    code = "model_not_found"
    status = 404


class JobNotFound(HeadraceError):
    code = "job_not_found"
    status = 404


class JournalExpired(HeadraceError):
    code = "journal_expired"
    status = 410


class IdempotencyConflict(HeadraceError):
    code = "idempotency_conflict"
    status = 409


class RevisionGone(HeadraceError):
    code = "revision_gone"
    status = 409


class PayloadTooLarge(HeadraceError):
    code = "payload_too_large"
    status = 413


class RateLimitExceeded(HeadraceError):
    code = "rate_limit_exceeded"
    status = 429
    retryable = True


class QueueFull(HeadraceError):
    code = "queue_full"
    status = 503
    retryable = True


class StoreUnavailable(HeadraceError):
    code = "store_unavailable"
    status = 503
    retryable = True


class BlobsUnavailable(StoreUnavailable):
    """The blob store is away, and Redis need not be: work that needs no blob goes on."""

    code = "blobs_unavailable"


class LedgerUnavailable(StoreUnavailable):
    """The outer queue is away, and Redis need not be: what was accepted goes on, nothing new is."""

    code = "ledger_unavailable"


class BlobNotFound(HeadraceError):
    """What a record refers to is no longer in the blob store."""

    code = "blob_not_found"
    status = 410


class BlobDamaged(HeadraceError):
    """What the blob store holds is not what was put there."""

    code = "blob_damaged"


class NoProgress(HeadraceError):
    code = "no_progress"
    status = 504
    retryable = True


class EngineFailure(HeadraceError):
    code = "engine_error"
    status = 500
    retryable = True


class Poison(HeadraceError):
    code = "poison"


class RetriesExhausted(HeadraceError):
    code = "retries_exhausted"


class DeadlineExceeded(HeadraceError):
    code = "deadline_exceeded"
    status = 504


class JobCancelled(HeadraceError):
    code = "cancelled"
    status = 499


class SetupError(HeadraceError):
    """A machine, a file or a setting is not as it must be. Ends a command with one line, never reaches a client."""

    code = "setup_error"


_BY_CODE: dict[str, type[HeadraceError]] = {
    cls.code: cls
    for cls in (
        HeadraceError,
        InvalidRequest,
        ContextLengthExceeded,
        UnknownParameter,
        MessageUnreadable,
        GrammarError,
        InvalidApiKey,
        Forbidden,
        ModelNotFound,
        JobNotFound,
        JournalExpired,
        IdempotencyConflict,
        RevisionGone,
        PayloadTooLarge,
        RateLimitExceeded,
        QueueFull,
        StoreUnavailable,
        BlobsUnavailable,
        LedgerUnavailable,
        BlobNotFound,
        BlobDamaged,
        NoProgress,
        EngineFailure,
        Poison,
        RetriesExhausted,
        DeadlineExceeded,
        JobCancelled,
        SetupError,
    )
}


def error_class(code: str) -> type[HeadraceError]:
    """The class of a code; the root for a code from a newer version than this one."""
    return _BY_CODE.get(code, HeadraceError)


def error_type(status: int) -> str:
    """OpenAI's `type` for an HTTP status."""
    by_status = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return by_status.get(status, "server_error" if status >= 500 else "invalid_request_error")


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as data: what a record, an event and a reply say of it."""

    code: str
    message: str
    retryable: bool = False

    def exception(self) -> HeadraceError:
        """The error as something to raise."""
        return error_class(self.code)(self.message)
