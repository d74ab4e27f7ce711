"""What the engine answers: tokens, failures, figures of a step, room and health; plain values, no behaviour."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why one request ended without finishing. `retryable` is false where the same input would fail again."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """New tokens of one request; `token_ids[0]` stands at `offset` of its output. The last output of a request has
    either a `finish_reason` or an `error`. `logprobs` is None until the engine supports them."""

    request_id: str
    offset: int
    token_ids: tuple[int, ...]
    logprobs: None = None
    finish_reason: FinishReason | None = None
    error: RequestFailure | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer, from `Engine.generate`."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    error: RequestFailure | None = None


@dataclass(frozen=True, slots=True)
class StepStats:
    """Figures of one step, counted after it.

    `decode_rows` are rows that continued an answer by one token, `prefill_tokens` all other rows, `sampled_tokens` what
    came out. `preemptions` happened in this step. `scheduled` names the requests that got a share of it.
    """

    seconds: float = 0.0
    prefill_tokens: int = 0
    decode_rows: int = 0
    sampled_tokens: int = 0
    running: int = 0
    waiting: int = 0
    pages: int = 0
    pages_used: int = 0
    preemptions: int = 0
    scheduled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step brought."""

    outputs: tuple[RequestOutput, ...]
    stats: StepStats


@dataclass(frozen=True, slots=True)
class Budget:
    """Room: `free_tokens` of KV cache are promised to nobody that is already here, as far as is known now."""

    total_tokens: int
    free_tokens: int
    free_seqs: int


@dataclass(frozen=True, slots=True)
class Health:
    """`stuck` names running requests without progress for too long; `last_step_age_s` is None before the first step."""

    ok: bool
    last_step_age_s: float | None
    running: int
    waiting: int
    stuck: tuple[str, ...] = field(default=())
