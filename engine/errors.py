"""The engine's own error tree: what can be wrong with a file, a setting or a request; knows no HTTP and no jobs.

EngineError
|-- ModelFileError       the file is damaged, or says something that this engine cannot run
|-- EngineConfigError    a knob, or a device that is not there
|-- EngineRequestError   add_request refuses; nothing was accepted
`-- EngineStepError      a whole step failed; the process should be replaced
"""

from typing import Final

_LONGEST_PART: Final = 600


class EngineError(Exception):
    """Base of all errors of this package. `code` is stable, `retryable` says whether the same call may work later."""

    code = "engine_error"
    retryable = False

    def __init__(self, message: str, *, code: str | None = None, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class ModelFileError(EngineError):
    """A model file that cannot be used. What a damaged file calls things may be long; the message is not.

    Codes: `model_file_missing`, `model_file_corrupt`, `model_unsupported`.
    """

    code = "model_file_corrupt"

    def __init__(self, what: str, why: str, next_step: str, *, code: str = "model_file_corrupt") -> None:
        self.what, self.why = _shortened(what), _shortened(why)
        super().__init__(f"{self.what}: {self.why} ({next_step})", code=code)
        self.next_step = next_step


class EngineConfigError(EngineError):
    """A knob out of range (`invalid_config`) or a device that is not there (`device_unavailable`)."""

    code = "invalid_config"


class EngineRequestError(EngineError):
    """add_request refuses. Codes: `invalid_request`, `context_length_exceeded`, `draining`."""

    code = "invalid_request"


class EngineStepError(EngineError):
    """The forward pass of a whole step failed. No request advanced; the owner should start a fresh engine."""

    code = "engine_error"
    retryable = True


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_PART else f"{text[: _LONGEST_PART - 1]}…"
