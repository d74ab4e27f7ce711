"""Decides which rows the next step computes, and what its tokens mean; holds no tensor and does no arithmetic on them.

One token budget and no phases: running requests first, in the order in which they were admitted, then waiting ones by
priority and arrival. A decode row and a row of a chunked prefill cost the same.
"""

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.block_pool import BlockPool
from engine.logprobs import TokenLogprobs
from engine.request import Request, RequestFailure, RequestOutput

# Pages kept free at admission, as a part of all: room for those already running to grow before anybody is preempted.
_WATERMARK: Final = 0.02


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one step: rows, rows times the positions that each sees, and requests that may run at once.

    The second bound keeps a step late in a long prompt as short as an early one: attention grows with both.
    """

    max_batched_tokens: int
    max_batched_keys: int
    max_num_seqs: int
    page_size: int


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
    def decodes(self) -> bool:
        return self.length == 1 and self.samples and self.start >= self.request.prompt_length


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """One step. `ended` are requests that had ended before they were computed: resumed with their whole output."""

    chunks: tuple[ScheduledChunk, ...]
    preempted: int
    ended: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the runner made of a plan, by request id: a token for each chunk that samples, or why there is none.

    `logprobs` are those of `tokens`, `explained` those of prompt tokens, both for requests that asked.
    """

    tokens: Mapping[str, int]
    failures: Mapping[str, RequestFailure]
    logprobs: Mapping[str, tuple[TokenLogprobs, ...]] = field(default_factory=dict)
    explained: Mapping[str, Sequence[TokenLogprobs]] = field(default_factory=dict)


class Scheduler:
    """Owns every request from `add` to its end, and their pages."""

    def __init__(self, limits: Limits, pool: BlockPool) -> None:
        self._limits = limits
        self._pool = pool
        self._watermark = int(pool.count * _WATERMARK)
        self._requests: dict[str, Request] = {}
        self._running: list[Request] = []  # in order of admission: the last is the youngest
        self._waiting: list[Request] = []  # in order of turn

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    def get(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self._limits.page_size)

    def add(self, request: Request) -> None:
        self._requests[request.id] = request
        self._wait(request)

    def remove(self, request_id: str) -> bool:
        """End a request now, whatever it is doing; False when there is none."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return False
        (self._running if request in self._running else self._waiting).remove(request)
        self._free(request)
        return True

    def schedule(self) -> SchedulePlan:
        ended = tuple(request for request in self._waiting if request.finish_reason())
        for request in ended:
            self.remove(request.id)
        chunks: list[ScheduledChunk] = []
        preempted = position = 0
        while position < len(self._running):
            request = self._running[position]
            position += 1
            if rows := self._rows(request, chunks):
                end = request.computed + rows
                preempted += self._make_room(request, end)
                if position <= len(self._running):  # it did not have to give way itself
                    chunks.append(self._take(request, end))
        while not preempted and self._may_admit() and (rows := self._rows(self._waiting[0], chunks)):
            request = self._waiting.pop(0)
            self._running.append(request)
            chunks.append(self._take(request, rows))
        return SchedulePlan(tuple(chunks), preempted, ended)

    def update(self, plan: SchedulePlan, result: StepResult) -> tuple[RequestOutput, ...]:
        """Advance every request of the plan. One that was removed meanwhile is left alone."""
        outputs = [
            RequestOutput(request.id, request.output_length, (), finish_reason=request.finish_reason())
            for request in plan.ended
        ]
        for chunk in plan.chunks:
            request = chunk.request
            if self._requests.get(request.id) is not request:
                continue
            request.computed = chunk.end
            request.explained += result.explained.get(request.id, ())
            if failure := result.failures.get(request.id):
                outputs.append(RequestOutput(request.id, request.output_length, (), error=failure))
                self.remove(request.id)
            elif chunk.samples:
                token_ids = (result.tokens[request.id],)
                outputs.append(self._advance(request, token_ids, result.logprobs.get(request.id, ())))
            elif request.finish_reason():
                outputs.append(self._advance(request, (), ()))
        return tuple(outputs)

    def check_integrity(self) -> None:
        """Every page is accounted for, and every request stands in exactly one place."""
        self._pool.check_integrity(request.pages for request in self._requests.values())
        assert len(self._running) + len(self._waiting) == len(self._requests)
        assert {id(r) for r in (*self._running, *self._waiting)} == {id(r) for r in self._requests.values()}
        assert all(not request.pages and not request.computed for request in self._waiting)
        assert self._waiting == sorted(self._waiting, key=lambda request: request.order)

    def _advance(
        self, request: Request, token_ids: tuple[int, ...], logprobs: tuple[TokenLogprobs, ...]
    ) -> RequestOutput:
        offset, prompt_logprobs = request.output_length, request.prompt_logprobs()
        request.ids += token_ids
        reason = request.finish_reason()
        if reason:
            self.remove(request.id)
        return RequestOutput(request.id, offset, token_ids, logprobs, reason, prompt_logprobs=prompt_logprobs)

    def _rows(self, request: Request, chunks: Sequence[ScheduledChunk]) -> int:
        """Rows that a request's next chunk may have behind what is in the step already; 0 when there is no room.

        A single row always fits, and so does a page's worth of the first prompt in a step: however long, it gets on.
        """
        start = request.computed
        rows = min(len(request.ids) - start, self._limits.max_batched_tokens - sum(c.length for c in chunks))
        if rows <= 1:
            return rows
        keys = max(0, self._limits.max_batched_keys - sum(c.length * c.end for c in chunks))
        affordable = (math.isqrt(start * start + 4 * keys) - start) // 2  # the most with rows * (start + rows) <= keys
        first = all(chunk.length == 1 for chunk in chunks)
        return min(rows, max(affordable, self._limits.page_size) if first else affordable)

    def _make_room(self, request: Request, end: int) -> int:
        """Preempt the youngest, in the end this request itself, until positions up to `end` have pages. How many."""
        preempted = 0
        while not self._pool.can_allocate(self._missing(request, end)):
            youngest = self._running.pop()
            self._free(youngest)
            self._wait(youngest)
            preempted += 1
            if youngest is request:
                break
        return preempted

    def _may_admit(self) -> bool:
        """Whether the next in turn has room for all that it knows; alone it always has (Engine.add_request saw to it).

        Nobody overtakes it, so a large request does not starve behind small ones.
        """
        if not self._waiting or len(self._running) >= self._limits.max_num_seqs:
            return False
        spare = self._watermark if self._running else 0
        return self._pool.can_allocate(self.pages_for(len(self._waiting[0].ids)) + spare)

    def _take(self, request: Request, end: int) -> ScheduledChunk:
        request.pages += self._pool.allocate(self._missing(request, end))
        samples = end == len(request.ids) and request.params.max_tokens > 0
        return ScheduledChunk(request, request.computed, end, samples)

    def _missing(self, request: Request, end: int) -> int:
        return max(0, self.pages_for(end) - len(request.pages))

    def _wait(self, request: Request) -> None:
        bisect.insort(self._waiting, request, key=lambda waiting: waiting.order)

    def _free(self, request: Request) -> None:
        """Forget what was computed; prompt and output stay, so it can be computed anew."""
        self._pool.release(request.pages)
        request.pages.clear()
        request.computed = 0
