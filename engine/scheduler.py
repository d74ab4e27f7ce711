"""Decides which rows the next step computes, and what its tokens mean; holds no tensor and does no arithmetic on them.

One token budget and no phases: running requests first, in the order in which they were admitted and each with a row at
least, then waiting ones in the order in which they are due. A decode row and a row of a chunked prefill cost the same.
"""

import bisect
from collections.abc import Iterable, Iterator
from typing import Final

from engine.logprobs import TokenLogprobs
from engine.outcome import RequestFailure, RequestOutput
from engine.prefix_cache import PrefixCache, extend_chain
from engine.request import Request
from engine.step_plan import ScheduledChunk, SchedulePlan, StepResult
from engine.step_room import StepLimits, StepRoom

# Pages kept free at admission, as a part of all: room for those already running to grow before anybody is preempted.
_WATERMARK: Final = 0.02


class Scheduler:
    """Owns every request from `add` to its end, and their pages. `num_pages` is how many pages there are in all."""

    def __init__(self, cache: PrefixCache, num_pages: int, page_size: int, max_num_seqs: int) -> None:
        self._cache = cache
        self._page_size = page_size
        self._max_num_seqs = max_num_seqs
        self._watermark = int(num_pages * _WATERMARK)
        self._requests: dict[str, Request] = {}
        self._running: list[Request] = []  # in order of admission: the last is the youngest
        self._waiting: list[Request] = []  # in order of turn

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def spare_pages(self, requests: Iterable[Request]) -> int:
        """Pages that no request holds, less those that `requests` will need for tokens they know already. Pages that
        only the prefix cache holds are spare."""
        promised = sum(self._missing(request, request.length) for request in requests)
        return max(0, self._cache.available - promised)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    def get(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self._page_size)

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

    def schedule(self, limits: StepLimits) -> SchedulePlan:
        ended = tuple(request for request in self._waiting if request.finish_reason())
        for request in ended:
            self.remove(request.id)
        room = StepRoom(limits, self._page_size)
        chunks, preempted = self._go_on(room)
        cached = 0
        while not preempted and (admitted := self._admit(room)):
            chunks.append(self._take(admitted, room, room.rows(admitted.planned, admitted.to_do)))
            cached += self._note_cached(admitted)
        return SchedulePlan(tuple(chunks), preempted, ended, cached)

    def update(self, plan: SchedulePlan, result: StepResult) -> tuple[RequestOutput, ...]:
        """Advance every request of the plan; plans come in the order in which they were made. A request that ended
        while the step was under way, by the step before it or by `remove`, is left alone: what it brings is dropped."""
        outputs = [
            RequestOutput(request.id, request.output_length, (), finish_reason=request.finish_reason())
            for request in plan.ended
        ]
        for chunk in plan.chunks:
            request = chunk.request
            if self._requests.get(request.id) is not request:
                continue
            request.awaited -= chunk.samples
            if failure := result.failures.get(request.id):
                outputs.append(self._fail(request, failure))
                continue
            request.explained += result.explained.get(request.id, ())
            if request.planned >= chunk.end:  # else it gave way meanwhile: its rows are gone, its token is good
                request.computed = chunk.end
                self._settle(request)
            if chunk.samples:
                token_ids = (result.tokens[request.id],)
                outputs.append(self._advance(request, token_ids, result.logprobs.get(request.id, ())))
            elif request.finish_reason():
                outputs.append(self._advance(request, (), ()))
        return tuple(outputs)

    def check_integrity(self) -> None:
        """Every page is accounted for, and every request stands in exactly one place."""
        self._cache.check_integrity(request.pages for request in self._requests.values())
        assert len(self._running) + len(self._waiting) == len(self._requests)
        assert {id(r) for r in (*self._running, *self._waiting)} == {id(r) for r in self._requests.values()}
        for request in self._waiting:
            assert not request.pages, "a waiting request holds pages"
            assert request.planned == request.computed == request.settled == 0
        for request in self._running:
            assert request.settled == request.computed // self._page_size
            assert request.computed <= request.planned <= request.length
            assert self.pages_for(request.planned) <= len(request.pages) <= self.pages_for(request.length)
        assert self._waiting == sorted(self._waiting, key=lambda request: request.order)

    def _go_on(self, room: StepRoom) -> tuple[list[ScheduledChunk], int]:
        """The next rows of all that run, and how many of them had to give way to others. A row is kept for each of
        those behind: a long prompt stops nobody's decoding."""
        chunks: list[ScheduledChunk] = []
        preempted = position = 0
        while position < len(self._running):
            request = self._running[position]
            position += 1
            rows = room.rows(request.planned, request.to_do, kept=len(self._running) - position)
            if rows:
                preempted += self._make_room(request, request.planned + rows)
                if position <= len(self._running):  # it did not have to give way itself
                    chunks.append(self._take(request, room, rows))
        return chunks, preempted

    def _admit(self, room: StepRoom) -> Request | None:
        """The next in turn, made to run with what the cache has of it, if all that it knows has room; alone it always
        has (Engine.add_request saw to it).

        Nobody overtakes it, so a large request does not starve behind small ones.
        """
        if not self._waiting or len(self._running) >= self._max_num_seqs:
            return None
        request = self._waiting[0]
        found = self._find(request)
        start = len(found) * self._page_size
        needed = self.pages_for(len(request.ids)) - len(found) + self._cache.idle_among(found)
        has_room = needed + self._watermark <= self.spare_pages(self._running) if self._running else True
        if not has_room or not room.rows(start, len(request.ids) - start) or self._is_coming(request, len(found)):
            return None
        assert not request.awaited, "a request runs again before it was heard of"
        self._cache.hold(found)
        request.pages, request.settled = found, len(found)
        request.planned = request.computed = start
        self._running.append(self._waiting.pop(0))
        return request

    def _find(self, request: Request) -> list[int]:
        """Pages that hold the request's first tokens already."""
        if not self._cache.enabled:
            return []
        extend_chain(request.chain, request.ids, self._page_size)
        return self._cache.find(request.chain[: request.reusable // self._page_size])

    def _is_coming(self, request: Request, found: int) -> bool:
        """Whether a step computes, for another request, the first page that was not found: it is worth a wait."""
        if not self._cache.enabled or found >= request.reusable // self._page_size:
            return False
        return any(
            other.computed // self._page_size <= found < other.planned // self._page_size
            and other.chain[found : found + 1] == request.chain[found : found + 1]
            for other in self._running
        )

    def _note_cached(self, request: Request) -> int:
        """Prompt tokens found in the cache, when it runs for the first time."""
        if request.cached_tokens is not None:
            return 0
        request.cached_tokens = min(request.settled * self._page_size, request.prompt_length)
        return request.cached_tokens

    def _settle(self, request: Request) -> None:
        """Give full pages to the cache; what they hold is final, and all their rows were finite."""
        full = request.computed // self._page_size
        if self._cache.enabled and full > request.settled:
            extend_chain(request.chain, request.ids, self._page_size)
            for index in range(request.settled, full):
                before = request.pages[index - 1] if index else None
                request.pages[index] = self._cache.keep(request.pages[index], request.chain[index], before)
        request.settled = full

    def _fail(self, request: Request, failure: RequestFailure) -> RequestOutput:
        """End a request that went wrong. Its pages may be why, so nobody else is to find them."""
        self._cache.forget(request.pages or self._cache.find(request.chain))  # none where it gave way meanwhile
        self.remove(request.id)
        return RequestOutput(
            request.id, request.output_length, (), error=failure, cached_tokens=request.cached_tokens or 0
        )

    def _advance(
        self, request: Request, token_ids: tuple[int, ...], logprobs: tuple[TokenLogprobs, ...]
    ) -> RequestOutput:
        offset, prompt_logprobs = request.output_length, request.prompt_logprobs()
        request.ids += token_ids
        request.explained = []  # shown now, or never asked for
        reason = request.finish_reason()
        if reason:
            self.remove(request.id)
        return RequestOutput(
            request.id, offset, token_ids, logprobs, reason, None, prompt_logprobs, request.cached_tokens or 0
        )

    def _make_room(self, request: Request, end: int) -> int:
        """Preempt the youngest, in the end this request itself, until positions up to `end` have pages. How many."""
        preempted = 0
        while self._missing(request, end) > self._cache.available:
            youngest = self._running.pop()
            self._free(youngest)
            self._wait(youngest)
            preempted += 1
            if youngest is request:
                break
        return preempted

    def _take(self, request: Request, room: StepRoom, rows: int) -> ScheduledChunk:
        start, end = request.planned, request.planned + rows
        room.take(start, end)
        request.pages += self._cache.allocate(self._missing(request, end))
        samples = end == request.length and request.params.max_tokens > 0
        request.planned = end
        request.awaited += samples
        return ScheduledChunk(request, start, end, samples)

    def _missing(self, request: Request, end: int) -> int:
        return max(0, self.pages_for(end) - len(request.pages))

    def _wait(self, request: Request) -> None:
        bisect.insort(self._waiting, request, key=lambda waiting: waiting.order)

    def _free(self, request: Request) -> None:
        """Forget what was computed; prompt and output stay, so it can be computed anew. Steps under way may still write
        to the pages: whoever gets them does so behind those, and before reading."""
        self._cache.release(request.pages)
        request.pages = []
        request.planned = request.computed = request.settled = 0
