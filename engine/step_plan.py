"""What one step is to compute, and what came of it: what scheduler and runner hand to each other; decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.logprobs import TokenLogprobs
from engine.outcome import RequestFailure
from engine.request import Request


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """Positions `start` to `end` of one request. `samples`: its last row is the last known token's, and gives the next.
    A request that wants no tokens never samples.

    `decodes`: one row behind the prompt, and not a part of computing anew what was known.
    """

    request: Request
    start: int
    end: int
    samples: bool

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def offset(self) -> int:
        """The number of the token that it gives, in the output of its request."""
        return self.end - self.request.prompt_length

    @property
    def work(self) -> int:
        """Rows times the last position that they see: what attention costs."""
        return self.length * self.end

    @property
    def decodes(self) -> bool:
        return self.length == 1 and self.samples and self.start >= self.request.prompt_length


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """One step. `ended` are requests that had ended before they were computed: resumed with their whole output.
    `cached_tokens` of prompts were found in the prefix cache by requests that run for the first time."""

    chunks: tuple[ScheduledChunk, ...]
    preempted: int
    ended: tuple[Request, ...]
    cached_tokens: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing comes of it, and nothing was done for it."""
        return not (self.chunks or self.preempted or self.ended)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the runner made of a plan, by request id: a token for each chunk that samples, or why there is none.

    `logprobs` are those of `tokens`, `explained` those of prompt tokens, both for requests that asked.
    """

    tokens: Mapping[str, int]
    failures: Mapping[str, RequestFailure]
    logprobs: Mapping[str, tuple[TokenLogprobs, ...]] = field(default_factory=dict)
    explained: Mapping[str, Sequence[TokenLogprobs]] = field(default_factory=dict)
