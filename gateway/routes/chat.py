"""`/v1/chat/completions` and `/v1/completions`: a job whose client waits for it, streamed or whole.

The status is chosen at the first delta or terminal event, so that a job which fails at once is a proper error. A client
that goes away cancels its job, unless it sent an `Idempotency-Key`: with that it may come back for the answer.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import structlog
from fastapi import APIRouter, Request, Response

from gateway import sse
from gateway.api_document import json_body
from gateway.cursor import Cursor
from gateway.errors import ClientGone, error_of, error_response, json_response
from gateway.event_stream import EventStream, openai_last_words
from gateway.presence import Presence
from gateway.reader import text_streams
from gateway.relay import Road
from gateway.services import Services
from gateway.submitting import Accepted, idempotency_key, read_body, submit
from headrace.contract.errors import HeadraceError, NoProgress, StoreUnavailable
from headrace.contract.events import Cancelled, Completed, Delta, Event, Expired, Failed
from headrace.contract.generation import Usage
from headrace.openai.projection import Answer, Reply
from headrace.openai.schema import ChatBody, CompletionBody
from headrace.openai.translate import chat_intent, completion_intent

_log = structlog.get_logger(__name__)

SILENCE_S = 600.0
"""A waiting client is told so after this long without any event; no connection is held for ever."""


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["openai"])

    @routes.post("/chat/completions", openapi_extra=json_body(ChatBody))
    async def chat(request: Request) -> Response:
        """A chat completion."""
        parsed, seen_as = await read_body(request, services, ChatBody)
        accepted = await submit(request, services, chat_intent(parsed), seen_as)
        return await Waiting(services, request, accepted, parsed.include_usage).answer(bool(parsed.stream))

    @routes.post("/completions", openapi_extra=json_body(CompletionBody))
    async def completion(request: Request) -> Response:
        """A completion of a raw prompt."""
        parsed, seen_as = await read_body(request, services, CompletionBody)
        accepted = await submit(request, services, completion_intent(parsed), seen_as)
        return await Waiting(services, request, accepted, parsed.include_usage).answer(bool(parsed.stream))

    return routes


class Waiting:
    """One client that waits for one job."""

    def __init__(self, services: Services, request: Request, accepted: Accepted, include_usage: bool) -> None:
        job = accepted.job
        self._services = services
        self._accepted = accepted
        self._presence = Presence(request.receive, services.closing)
        self._may_come_back = bool(idempotency_key(request))
        self._since = time.perf_counter()
        self._reply = Reply(job.kind, job.id, job.model, job.created_at or time.time_ns() // 1_000_000, include_usage)

    async def answer(self, stream: bool) -> Response:
        """The whole reply, the beginning of a stream, or the error of a job that failed before its first token."""
        stack = AsyncExitStack()
        try:
            return await self._presence.during(self._stream(stack) if stream else self._whole(stack))
        except ClientGone:
            await self._cancel()
            raise
        except HeadraceError as error:
            return error_response(error, self._accepted.headers)
        finally:
            await stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> Road:
        job = self._accepted.job
        new_stream = await text_streams(self._services, job)
        follow = self._services.relay.follow(job, Cursor.start(job.request.n), new_stream)
        return await stack.enter_async_context(follow)

    async def _whole(self, stack: AsyncExitStack) -> Response:
        road = await self._open(stack)
        texts = [""] * self._accepted.job.request.n
        reasons = ["stop"] * len(texts)
        while True:
            match await self._next_said(road, SILENCE_S):
                case None:
                    raise _silent()
                case Delta(choice=choice, text=text, finish_reason=reason):
                    texts[choice] += text
                    reasons[choice] = reason or reasons[choice]
                case Completed(usage=usage):
                    answers = [Answer(i, text, reasons[i]) for i, text in enumerate(texts)]
                    return json_response(self._reply.whole(answers, usage), headers=self._accepted.headers)
                case Failed() | Cancelled() | Expired() as ending:
                    raise error_of(ending)

    async def _stream(self, stack: AsyncExitStack) -> Response:
        road = await self._open(stack)
        first = await self._next_said(road, self._services.settings.gateway.first_event_timeout_s)
        if isinstance(first, Failed | Cancelled | Expired):
            raise error_of(first)
        return EventStream(
            self._frames(road, first),
            stack=stack.pop_all(),
            closing=self._services.closing,
            last_words=openai_last_words,
            on_gone=self._cancel,
            headers=self._accepted.headers,
        )

    async def _frames(self, road: Road, first: Delta | Completed | None) -> AsyncGenerator[bytes, None]:
        for choice in range(self._accepted.job.request.n):
            yield sse.frame(self._reply.opening(choice))
        ping_s = self._services.settings.gateway.ping_s
        event: Delta | Completed | Failed | Cancelled | Expired | None = first
        heard_at = time.monotonic()
        while True:
            match event:
                case None:
                    if time.monotonic() - heard_at > SILENCE_S:
                        raise _silent()
                    yield sse.PING
                case Delta():
                    heard_at = time.monotonic()
                    for chunk in self._chunks(event):
                        yield chunk
                case Completed(usage=usage):
                    for chunk in self._end(usage):
                        yield chunk
                    return
                case Failed() | Cancelled() | Expired():
                    raise error_of(event)
            event = await self._next_said(road, ping_s)

    def _chunks(self, delta: Delta) -> list[bytes]:
        chunks = [sse.frame(self._reply.text(delta.text, delta.choice))] if delta.text else []
        if delta.finish_reason is not None:
            chunks.append(sse.frame(self._reply.closing(delta.finish_reason, delta.choice)))
        return chunks

    def _end(self, usage: Usage) -> list[bytes]:
        return [*([sse.frame(self._reply.usage(usage))] if self._reply.include_usage else []), sse.DONE]

    async def _next_said(self, road: Road, timeout_s: float) -> Delta | Completed | Failed | Cancelled | Expired | None:
        """The next event that means something to an OpenAI client; None when there was none in this time."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            event: Event | None = await road.next(left)
            if isinstance(event, Delta) and event.offset == 0:
                self._services.metrics.first_token_seconds.observe(time.perf_counter() - self._since)
            if isinstance(event, Delta | Completed | Failed | Cancelled | Expired):
                return event
        return None

    async def _cancel(self) -> None:
        if self._may_come_back:
            return
        job_id = self._accepted.job.id
        try:
            await self._services.queue.cancel(job_id)
            _log.info("gateway.cancelled", job=job_id, reason="the client went away")
        except StoreUnavailable as error:
            # The job runs to its end unread; a deadline or max_tokens bounds what that costs.
            _log.warning("gateway.cancel_failed", job=job_id, reason=error.message)


def _silent() -> NoProgress:
    return NoProgress(f"Nothing was heard of this job for {SILENCE_S:.0f} s.", next_step="It goes on as a job.")
