"""Decides which tokens run in a step, who waits and who gives way; holds no tensor and computes nothing.

One token budget and no phases: running requests first, oldest first, a decode row costs 1 and a chunk of a prefill its
length; what is left admits waiting requests in order of (priority, arrival). Output that is still to come is not
reserved (pools would stand half empty), so pages can run out: then the youngest running request gives up its pages,
waits with its output kept, and is recomputed later. The oldest never gives way, so everybody finishes.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from engine.block_pool import BlockPool
from engine.outputs import Budget, RequestFailure, RequestOutput
from engine.request import Request


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """Tokens [start, start + length) of one request run in this step."""

    request: Request
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def samples(self) -> bool:
        """Whether the chunk reaches the last known token, so that its last row gives the next one."""
        return self.end == self.request.num_tokens

    @property
    def decodes(self) -> bool:
        return self.length == 1 and self.start >= len(self.request.prompt_ids)


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """One step. `preempted` gave up their pages for it."""

    chunks: tuple[ScheduledChunk, ...]
    preempted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the runner found: for each request that sampled a token, and for each that failed the reason."""

    sampled: dict[str, int]
    failed: dict[str, RequestFailure]


class Scheduler:
    """Owns all requests and their pages."""

    def __init__(self, pool: BlockPool, page_size: int, max_batched_tokens: int, max_num_seqs: int) -> None:
        self._pool = pool
        self._page_size = page_size
        self._max_batched_tokens = max_batched_tokens
        # Every running request must be able to decode in every step.
        self._max_running = min(max_num_seqs, max_batched_tokens)
        # Pages kept free at admission, so that a newcomer is not preempted by the next page that somebody needs.
        self._watermark = max(1, pool.total // 100)
        self._running: list[Request] = []  # oldest first
        self._waiting: list[Request] = []  # oldest first
        self._complete: list[Request] = []  # resumed from a whole answer: they end in the next update
        self._by_id: dict[str, Request] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_id

    @property
    def running(self) -> Sequence[Request]:
        return self._running

    @property
    def waiting(self) -> Sequence[Request]:
        return self._waiting

    @property
    def free_pages(self) -> int:
        return self._pool.free_count

    @property
    def has_unfinished(self) -> bool:
        return bool(self._by_id)

    def fits_alone(self, tokens: int) -> bool:
        """Whether a request of that many tokens could ever run."""
        return self._pages(tokens) <= self._pool.total

    def add(self, request: Request) -> None:
        """Takes a request that `fits_alone`."""
        self._by_id[request.request_id] = request
        if request.finish_reason() is None:
            insort(self._waiting, request, key=_order)
        else:
            self._complete.append(request)

    def get(self, request_id: str) -> Request:
        return self._by_id[request_id]

    def unfinished(self) -> Iterable[Request]:
        """All requests, in order of arrival."""
        return list(self._by_id.values())

    def remove(self, request_id: str) -> None:
        """Forgets a request and takes its pages back."""
        request = self._by_id.pop(request_id)
        for queue in (self._running, self._waiting, self._complete):
            if request in queue:
                queue.remove(request)
        self._take_pages(request)

    def schedule(self) -> SchedulePlan:
        """The next step. Allocates the pages that it needs."""
        preempted: list[str] = []
        chunks = self._continue_running(preempted)
        if not preempted:
            self._admit(chunks)
        return SchedulePlan(tuple(chunks), tuple(preempted))

    def update(self, plan: SchedulePlan, result: StepResult, now: float) -> tuple[RequestOutput, ...]:
        """Takes the result in: requests advance, finish or fail, and pages come back."""
        outputs = [self._end_complete(request) for request in tuple(self._complete)]
        for chunk in plan.chunks:
            output = self._advance(chunk, result, now)
            if output is not None:
                outputs.append(output)
        return tuple(outputs)

    def budget(self) -> Budget:
        """Room beside all that is here now: what known tokens of waiting requests will take is not free."""
        free = max(0, self._pool.free_count - self._committed_pages())
        return Budget(
            total_tokens=self._pool.total * self._page_size,
            free_tokens=free * self._page_size,
            free_seqs=max(0, self._max_running - len(self._running) - len(self._waiting)),
        )

    def would_fit(self, tokens: int) -> bool:
        """Whether a request with that many known tokens would be admitted at the next step."""
        budget = self.budget()
        reserve = self._watermark if self._by_id else 0
        return budget.free_seqs > 0 and (self._pages(tokens) + reserve) * self._page_size <= budget.free_tokens

    def check_integrity(self) -> None:
        """AssertionError unless every page is free or held by the request that lists it."""
        self._pool.check_integrity(chain.from_iterable(request.pages for request in self._by_id.values()))
        for request in self._by_id.values():
            assert len(request.pages) >= self._pages(request.computed), f"{request.request_id} lacks pages"
            assert request in self._running or not request.pages, f"{request.request_id} waits with pages"

    def _continue_running(self, preempted: list[str]) -> list[ScheduledChunk]:
        chunks: list[ScheduledChunk] = []
        budget = self._max_batched_tokens
        decoding_behind = sum(request.decoding for request in self._running)
        position = 0
        while position < len(self._running):
            request = self._running[position]
            position += 1
            decoding_behind -= request.decoding
            # A prefill leaves a row for every decode behind it: an arrival must not stall a stream.
            length = min(request.remaining, budget - decoding_behind)
            if length <= 0:
                continue
            while not self._pool.can_allocate(self._missing_pages(request, length)):
                victim = self._running.pop()  # never one that is scheduled: those stand before `request`
                decoding_behind -= victim.decoding and victim is not request
                preempted.append(self._preempt(victim))
                if victim is request:
                    return chunks
            chunks.append(self._take(request, length))
            budget -= length
        return chunks

    def _admit(self, chunks: list[ScheduledChunk]) -> None:
        budget = self._max_batched_tokens - sum(chunk.length for chunk in chunks)
        promised = sum(self._unallocated_pages(request) for request in self._running)
        while self._waiting and budget > 0 and len(self._running) < self._max_running:
            request = self._waiting[0]
            needed = self._pages(request.num_tokens)
            reserve = self._watermark if self._running else 0
            if self._pool.free_count - promised < needed + reserve:
                return  # nobody overtakes the first in line, or it would wait for ever
            self._waiting.pop(0)
            insort(self._running, request, key=_order)
            chunk = self._take(request, min(request.remaining, budget))
            chunks.append(chunk)
            budget -= chunk.length
            promised += self._unallocated_pages(request)

    def _take(self, request: Request, length: int) -> ScheduledChunk:
        request.pages += self._pool.allocate(self._missing_pages(request, length))
        return ScheduledChunk(request, request.computed, length)

    def _preempt(self, request: Request) -> str:
        self._take_pages(request)
        insort(self._waiting, request, key=_order)  # older than all that never ran, so in front of them
        return request.request_id

    def _take_pages(self, request: Request) -> None:
        self._pool.release(request.pages)
        request.pages = []
        request.computed = 0

    def _advance(self, chunk: ScheduledChunk, result: StepResult, now: float) -> RequestOutput | None:
        request, request_id = chunk.request, chunk.request.request_id
        offset = len(request.output_ids)
        if request_id in result.failed:
            self.remove(request_id)
            return RequestOutput(request_id, offset, (), error=result.failed[request_id])
        samples = chunk.samples
        request.computed = chunk.end
        request.progressed_at = now
        if not samples:
            return None
        token = result.sampled[request_id]
        request.output_ids.append(token)
        reason = request.finish_reason()
        if reason is not None:
            self.remove(request_id)
        return RequestOutput(request_id, offset, (token,), finish_reason=reason)

    def _end_complete(self, request: Request) -> RequestOutput:
        self.remove(request.request_id)
        return RequestOutput(request.request_id, len(request.output_ids), (), finish_reason=request.finish_reason())

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self._page_size)

    def _missing_pages(self, request: Request, length: int) -> int:
        """Pages that the next `length` tokens need beyond those that the request holds."""
        return max(0, self._pages(request.computed + length) - len(request.pages))

    def _unallocated_pages(self, request: Request) -> int:
        """Pages that the request's known tokens will still take."""
        return max(0, self._pages(request.num_tokens) - len(request.pages))

    def _committed_pages(self) -> int:
        return sum(self._unallocated_pages(request) for request in chain(self._running, self._waiting))


def _order(request: Request) -> tuple[int, int]:
    return request.order
