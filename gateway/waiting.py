"""One client that waits for the jobs of its request, streamed or whole. Knows OpenAI's replies, not how work is queued.

The status is chosen at the first delta or terminal event, so that a job which fails at once is a proper error. Whatever
else ends the wait than the reply's own end cancels what goes on: the client left, this gateway stops, a road broke. Not
so when the client was told that the job goes on, or sent an `Idempotency-Key`: with that it may come back for it.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from fastapi import Request, Response

from gateway import sse
from gateway.errors import error_of, error_response, json_response
from gateway.event_stream import EventStream, openai_last_words
from gateway.presence import Presence
from gateway.reader import telling, text_streams
from gateway.roads import Roads, Said, follow_all
from gateway.services import Services
from gateway.submitting import Accepted, idempotency_key
from headrace.contract.errors import HeadraceError, NoProgress
from headrace.contract.events import Cancelled, Completed, Delta, Expired, Failed, Started
from headrace.contract.generation import Usage
from headrace.contract.job import Kind
from headrace.openai.projection import Reply
from headrace.openai.telling import Part, Telling, answers
from headrace.queue.rules import fallen_back

SILENCE_S = 600.0
"""A waiting client is told so after this long without any event; no connection is held for ever."""


class Waiting:
    """The jobs' choices stand in the reply in the order of the jobs."""

    def __init__(self, services: Services, request: Request, accepted: Sequence[Accepted], include_usage: bool) -> None:
        first = accepted[0].job
        self._services = services
        self._jobs = [each.job for each in accepted]
        self._headers = accepted[0].headers
        self._presence = Presence(request.receive, services.closing)
        self._kept = bool(idempotency_key(request))
        self._since: float | None = time.perf_counter()
        created_at = first.created_at or time.time_ns() // 1_000_000
        self._reply = Reply(first.kind, first.id, first.model, created_at, include_usage)
        self._tellings: list[Telling] = []
        self._usages: list[Usage] = []
        self._living = set(range(len(self._jobs)))
        self._fallen: set[int] = set()

    async def answer(self, stream: bool) -> Response:
        """The whole reply, the beginning of a stream, or the error of a job that failed before its first token."""
        stack = AsyncExitStack()
        stack.push_async_callback(self._let_go)
        try:
            if not stream:
                return await self._presence.during(self._whole(stack))
            roads, first = await self._presence.during(self._begin(stack))
            return EventStream(
                self._frames(roads, first),
                stack=stack.pop_all(),
                closing=self._services.closing,
                last_words=openai_last_words,
                headers=self._headers,
            )
        except HeadraceError as error:
            return error_response(error, self._headers)
        finally:
            await stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> Roads:
        at = 0
        for job in self._jobs:
            self._tellings.append(await telling(self._services, job, at))
            at += job.request.n
        streams = [await text_streams(self._services, job) for job in self._jobs]
        return await stack.enter_async_context(follow_all(self._services.relay, self._jobs, streams))

    async def _whole(self, stack: AsyncExitStack) -> Response:
        roads = await self._open(stack)
        parts: list[Part] = []
        while not self._done:
            heard = await self._next(roads, SILENCE_S)
            if heard is None:
                raise self._silent()
            part = await self._take(*heard)
            parts += [part] if part else []
        return json_response(self._reply.whole(answers(parts), self._usage), headers=self._headers)

    async def _begin(self, stack: AsyncExitStack) -> tuple[Roads, Part | None]:
        roads = await self._open(stack)
        first = await self._next(roads, self._services.settings.gateway.first_event_timeout_s)
        while first is not None and isinstance(first[1], Started):
            await self._take(*first)
            first = await self._next(roads, self._services.settings.gateway.first_event_timeout_s)
        return roads, await self._take(*first) if first else None

    async def _frames(self, roads: Roads, part: Part | None) -> AsyncGenerator[bytes, None]:
        if self._reply.kind is Kind.CHAT:
            for choice in range(sum(job.request.n for job in self._jobs)):
                yield sse.frame(self._reply.opening(choice))
        for chunk in self._chunks(part):
            yield chunk
        heard_at = time.monotonic()
        while not self._done:
            heard = await self._next(roads, self._services.settings.gateway.ping_s)
            if heard is not None:
                heard_at = time.monotonic()
                for chunk in self._chunks(await self._take(*heard)):
                    yield chunk
            elif time.monotonic() - heard_at > SILENCE_S:
                raise self._silent()
            else:
                yield sse.PING
        if self._reply.include_usage:
            yield sse.frame(self._reply.usage(self._usage))
        yield sse.DONE

    def _chunks(self, part: Part | None) -> list[bytes]:
        if part is None:
            return []
        chunks = [] if part.says_nothing else [sse.frame(self._reply.text(part.text, part.index, part.logprobs))]
        if part.finish_reason is not None:
            chunks.append(sse.frame(self._reply.closing(part.finish_reason, part.index)))
        return chunks

    async def _next(self, roads: Roads, timeout_s: float) -> tuple[int, Said] | None:
        heard = await roads.next(timeout_s)
        if heard is not None and self._since is not None and isinstance(heard[1], Delta):
            self._services.metrics.first_token_seconds.observe(time.perf_counter() - self._since)
            self._since = None
        return heard

    async def _take(self, number: int, said: Said) -> Part | None:
        """What a delta adds to the answer. One job that ended without an answer ends the others too, and its error is
        raised: a reply with some of its choices missing would be taken for a whole one."""
        match said:
            case Delta():
                return self._tellings[number].part(said)
            case Started():
                await self._fall_back(number)
                return None
            case Completed(usage=usage):
                self._living.discard(number)
                self._usages.append(usage)
                return None
            case Failed() | Cancelled() | Expired():
                self._living.discard(number)
                await self._abandon()
                raise error_of(said)

    async def _fall_back(self, number: int) -> None:
        """Another model answers from here on. A reply has one name: the other model's once it answers everything."""
        if (other := fallen_back(self._jobs[number])) is not None:
            at = sum(job.request.n for job in self._jobs[:number])
            self._tellings[number] = await telling(self._services, other, at)
            self._fallen.add(number)
            if len(self._fallen) == len(self._jobs):
                self._reply = replace(self._reply, model=other.model)

    @property
    def _done(self) -> bool:
        return not self._living

    @property
    def _usage(self) -> Usage:
        return Usage(
            sum(usage.prompt_tokens for usage in self._usages),
            sum(usage.completion_tokens for usage in self._usages),
            sum(usage.cached_tokens for usage in self._usages),
        )

    def _silent(self) -> NoProgress:
        self._kept = True
        return NoProgress(f"Nothing was heard of this job for {SILENCE_S:.0f} s.", next_step="It goes on as a job.")

    async def _let_go(self) -> None:
        if not self._kept:
            await self._abandon()

    async def _abandon(self) -> None:
        """Cancel what has not ended: at once where the store can be asked, else as soon as it can."""
        ids = [self._jobs[number].id for number in sorted(self._living)]
        self._living.clear()
        await self._services.abandoned.cancel(ids)
