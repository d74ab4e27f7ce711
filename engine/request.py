"""One request on its way through the engine: its tokens, its pages, how far it is computed; knows no scheduling.

token_ids   | prompt ............ | output (resumed ids first) ......|
            0        computed ->  prompt                             num_tokens
keys and values of [0, computed) are in `pages`; the rest is still to run. Output stays output after a resume or a
preemption: penalties, min_tokens and max_tokens count it as such.
"""

from dataclasses import dataclass, field

from engine.outputs import FinishReason
from engine.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Resume:
    """Tokens that an earlier attempt generated. The first new token has offset len(token_ids)."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that another engine needs to go on: add_request(request_id, prompt_ids, params, Resume(output_ids))."""

    request_id: str
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    params: SamplingParams
    priority: int


@dataclass(slots=True, eq=False)
class Request:
    """Owned by the scheduler. `ends` are the ids that stop it; `order` sorts by priority, then arrival."""

    request_id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    ends: frozenset[int]
    order: tuple[int, int]
    output_ids: list[int]
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    progressed_at: float = 0.0

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def remaining(self) -> int:
        """Known tokens that are not computed yet."""
        return self.num_tokens - self.computed

    @property
    def decoding(self) -> bool:
        """One row short of its next token, with output behind it."""
        return self.remaining == 1 and bool(self.output_ids)

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Tokens [start, stop) of prompt and output."""
        border = len(self.prompt_ids)
        return [*self.prompt_ids[start:stop], *self.output_ids[max(0, start - border) : max(0, stop - border)]]

    def finish_reason(self) -> FinishReason | None:
        """Whether the output so far is a whole answer."""
        count = len(self.output_ids)
        if count and count >= self.params.min_tokens and self.output_ids[-1] in self.ends:
            return "stop"
        return "length" if count >= self.params.max_tokens else None

    def snapshot(self) -> Snapshot:
        return Snapshot(self.request_id, self.prompt_ids, tuple(self.output_ids), self.params, priority=self.order[0])
