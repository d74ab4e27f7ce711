"""What the engine says of a request: its tokens, how it ended, what is needed to go on; values of the border."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.logprobs import TokenLogprobs


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why one request ended without a finish reason."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """What one step brought one request: its tokens from `offset` on, and how it ended, if it did.

    `finish_reason` is "stop" (an end or stop token, the last of `token_ids`) or "length". Where they were asked for,
    `logprobs` has one entry for each id, and the output of offset 0 has `prompt_logprobs`: one for each prompt token,
    None for the first, which nothing predicts. A request that resumes with tokens has shown its prompt's before.
    `cached_tokens` of the prompt were found in the prefix cache; every output of a request says so.
    """

    request_id: str
    offset: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: str | None = None
    error: RequestFailure | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Enough to go on elsewhere: `Resume(token_ids)` with the same prompt and parameters."""

    request_id: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished request of `Engine.generate`."""

    token_ids: tuple[int, ...]
    finish_reason: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()


def completion_of(outputs: Sequence[RequestOutput]) -> Completion:
    """All outputs of one finished request, put together."""
    last = outputs[-1]
    assert last.finish_reason is not None
    return Completion(
        tuple(token_id for output in outputs for token_id in output.token_ids),
        last.finish_reason,
        tuple(entry for output in outputs for entry in output.logprobs),
        outputs[0].prompt_logprobs,
    )
