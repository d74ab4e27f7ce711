"""`/v1/jobs`: submit, look, follow, cancel. Knows the job object; a job goes on whoever listens."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import structlog
from fastapi import APIRouter, Request, Response

from gateway import sse
from gateway.api_document import json_body
from gateway.cursor import Cursor
from gateway.errors import error_response, json_response
from gateway.event_stream import EventStream
from gateway.reader import answers_of, text_streams
from gateway.relay import Road
from gateway.services import Services
from gateway.submitting import read_body, submit
from headrace.contract.errors import HeadraceError, JobNotFound, JournalExpired
from headrace.contract.events import to_json
from headrace.contract.ids import is_job_id
from headrace.contract.job import Job, State
from headrace.openai.projection import error_body, job_object
from headrace.openai.schema import JobBody
from headrace.openai.translate import job_intent


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.post("", status_code=202, openapi_extra=json_body(JobBody))
    async def create(request: Request) -> Response:
        """Queue a chat completion or completion; answered when it is durable."""
        parsed, seen_as = await read_body(request, services, JobBody)
        accepted = await submit(request, services, job_intent(parsed), seen_as)
        headers = {"location": f"/v1/jobs/{accepted.job.id}", **accepted.headers}
        return json_response(await _shown(services, accepted.job), 202, headers)

    @routes.get("/{job_id}")
    async def show(job_id: str) -> Response:
        """The job as it stands; `result` once it succeeded, as long as it is kept."""
        return json_response(await _shown(services, await find(services, job_id)))

    @routes.delete("/{job_id}")
    async def cancel(job_id: str) -> Response:
        """Cancel; a job that has ended is answered as it is."""
        job = await find(services, job_id)
        if not job.ended:
            await services.queue.cancel(job_id)
            job = await find(services, job_id)
        return json_response(await _shown(services, job))

    @routes.get("/{job_id}/events")
    async def events(request: Request, job_id: str) -> Response:
        """Every event from the cursor on, live until the job has ended."""
        job = await find(services, job_id)
        cursor = _cursor(request, job)
        stack = AsyncExitStack()
        try:
            new_stream = await text_streams(services, job)
            road = await stack.enter_async_context(services.relay.follow(job, cursor, new_stream))
        except JournalExpired as error:
            await stack.aclose()
            return _expired(job, error)
        except BaseException:
            await stack.aclose()
            raise
        return EventStream(
            _frames(road, services.settings.gateway.ping_s),
            stack=stack,
            closing=services.closing,
            last_words=_last_words,
        )

    return routes


async def find(services: Services, job_id: str) -> Job:
    """Raises JobNotFound, also for what cannot be a job's id."""
    job = await services.queue.get(job_id) if is_job_id(job_id) else None
    if job is None:
        raise JobNotFound(
            f"There is no job {job_id[:80]!r}.", next_step="Check the id; a job is kept for a day after its end."
        )
    structlog.contextvars.bind_contextvars(job=job_id)
    return job


async def _shown(services: Services, job: Job) -> dict[str, object]:
    return job_object(job, await answers_of(services, job) if job.state is State.SUCCEEDED else None)


def _cursor(request: Request, job: Job) -> Cursor:
    """The header wins: it is what a reader that reconnects by itself has changed."""
    text = request.headers.get("last-event-id") or request.query_params.get("cursor")
    if not text:
        return Cursor.start(job.request.n)
    return Cursor.parse(text, job.request.n, job.request.max_tokens)


async def _frames(road: Road, ping_s: float) -> AsyncGenerator[bytes, None]:
    while not road.ended:
        event = await road.next(ping_s)
        if event is not None:
            yield sse.frame(to_json(event), event=event.type, event_id=str(road.cursor))
        elif not road.ended:
            yield sse.PING


def _expired(job: Job, error: JournalExpired) -> Response:
    link = f"/v1/jobs/{job.id}"
    told = JournalExpired(error.message, next_step=f"The result is at {link}.")
    return error_response(told, {"link": f'<{link}>; rel="alternate"'})


def _last_words(error: HeadraceError) -> bytes:
    # Without an `id:`, so that a reader comes back to where it stood.
    return sse.frame(error_body(error), event="error")
