"""What one call of the engine's step gives back: outputs, and figures of the step that they came from."""

from dataclasses import dataclass

from engine.outcome import RequestOutput


@dataclass(frozen=True, slots=True)
class StepStats:
    """One step. `decode_rows` computed the next token behind the prompt; all other rows count as prefill. `scheduled`
    had a share of it. `cached_tokens` of prompts were found in the prefix cache by requests that first ran now.
    `pages_used` are held by requests; `pages_cached` by the prefix cache alone, until somebody needs the room.

    `seconds` are those from its plan, or from the end of the step before it where it was planned earlier, to its
    outputs. A row that was computed for a request that had ended meanwhile counts like any other, and has no token.
    """

    seconds: float
    prefill_tokens: int
    decode_rows: int
    sampled_tokens: int
    preemptions: int
    running: int
    waiting: int
    pages: int
    pages_used: int
    pages_cached: int
    scheduled: tuple[str, ...]
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class StepOutput:
    outputs: tuple[RequestOutput, ...]
    stats: StepStats
