"""`/v1/jobs`: submit, list, look, follow, cancel. Knows the job object; a job goes on whoever listens."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from gateway import sse
from gateway.api_document import json_body, query_parameters
from gateway.errors import error_response, json_response
from gateway.event_stream import EventStream
from gateway.lookup import cursor_of, expired, find, find_or_done, model_of
from gateway.prefer import ended_within, preferred_wait
from gateway.reader import answers_of, text_streams
from gateway.relay import Road
from gateway.services import Services
from gateway.submitting import read_body, submit
from headrace.contract.errors import HeadraceError, JournalExpired
from headrace.contract.events import to_json
from headrace.contract.job import Job, State
from headrace.openai.listing import PARAMETERS, job_query
from headrace.openai.projection import error_body, job_list, job_object
from headrace.openai.schema import JobBody
from headrace.openai.translate import job_intent


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.post("", status_code=202, openapi_extra=json_body(JobBody))
    async def create(request: Request) -> Response:
        """Queue a chat completion or completion; answered when it is durable, or with `Prefer: wait=N` when it has
        ended (200) or N seconds have passed (202)."""
        parsed, seen_as = await read_body(request, services, JobBody)
        accepted = await submit(request, services, job_intent(parsed), seen_as)
        job = accepted.job
        headers = {"location": f"/v1/jobs/{job.id}", **accepted.headers}
        seconds = preferred_wait(request.headers.getlist("prefer"))
        if seconds:
            job, waited = await ended_within(services, request, job, seconds)
            if waited:
                headers["preference-applied"] = f"wait={seconds}"
        return json_response(await _shown(services, job), 200 if seconds and job.ended else 202, headers)

    @routes.get("", openapi_extra={"parameters": query_parameters(PARAMETERS)})
    async def list_jobs(request: Request) -> Response:
        """Jobs, newest first, without their results."""
        query = job_query(request.query_params.multi_items())
        if query.model:
            query = replace(query, model=await model_of(services, query.model))
        page = await services.index.page(query)
        return json_response(job_list(page.jobs, page.first_id, page.last_id, page.has_more))

    @routes.get("/{job_id}")
    async def show(job_id: str) -> Response:
        """The job as it stands; `result` once it succeeded, as long as it is kept."""
        return json_response(await _shown(services, await find_or_done(services, job_id)))

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
        # The header wins: it is what a reader that reconnects by itself has changed.
        cursor = cursor_of(request.headers.get("last-event-id") or request.query_params.get("cursor"), job)
        stack = AsyncExitStack()
        try:
            new_stream = await text_streams(services, job)
            road = await stack.enter_async_context(services.relay.follow(job, cursor, new_stream))
        except JournalExpired as error:
            await stack.aclose()
            return error_response(expired(job, error), {"link": f'</v1/jobs/{job.id}>; rel="alternate"'})
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


async def _shown(services: Services, job: Job) -> dict[str, object]:
    return job_object(job, await answers_of(services, job) if job.state is State.SUCCEEDED else None)


async def _frames(road: Road, ping_s: float) -> AsyncGenerator[bytes, None]:
    while not road.ended:
        event = await road.next(ping_s)
        if event is not None:
            yield sse.frame(to_json(event), event=event.type, event_id=str(road.cursor))
        elif not road.ended:
            yield sse.PING


def _last_words(error: HeadraceError) -> bytes:
    # Without an `id:`, so that a reader comes back to where it stood.
    return sse.frame(error_body(error), event="error")
