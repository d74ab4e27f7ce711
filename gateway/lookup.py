"""The job or model that a reader names and the place it wants to read from. Knows ids and cursors as text, not the way
out."""

from dataclasses import replace

import structlog

from gateway.cursor import Cursor
from gateway.services import Services
from headrace.contract.errors import JobNotFound, JournalExpired, ModelNotFound
from headrace.contract.ids import is_job_id
from headrace.contract.job import Job
from headrace.ledger.done import DoneMarks


async def find(services: Services, job_id: str) -> Job:
    """Raises JobNotFound, also for what cannot be a job's id."""
    job = await services.queue.get(job_id) if is_job_id(job_id) else None
    if job is None:
        raise JobNotFound(
            f"There is no job {job_id[:80]!r}.", next_step="Check the id; a job is kept for a day after its end."
        )
    structlog.contextvars.bind_contextvars(job=job_id)
    return job


async def find_or_done(services: Services, job_id: str) -> Job:
    """The same for a look at its end: a job of a ledger is known by its mark when Redis has forgotten it. Its prompt is
    gone, and with it an answer that repeats it."""
    try:
        return await find(services, job_id)
    except JobNotFound:
        if not services.settings.ledger.url or not is_job_id(job_id):
            raise
        mark = await services.payloads.with_blobs(lambda blobs: DoneMarks(blobs).get(job_id))
        if mark is None:
            raise
        structlog.contextvars.bind_contextvars(job=job_id)
        return replace(mark.job, result_ref="") if mark.job.request.echo else mark.job


async def model_of(services: Services, name: str) -> str:
    """What jobs call a model that was asked for by an alias. A model that is gone still has its jobs."""
    try:
        return (await services.cards.get(name)).card.id
    except ModelNotFound:
        return name


def cursor_of(text: str | None, job: Job) -> Cursor:
    """Where a reader stands; at the beginning without a text. Raises InvalidRequest."""
    if not text:
        return Cursor.start(job.request.n)
    return Cursor.parse(text, job.request.n, job.request.max_tokens)


def expired(job: Job, error: JournalExpired) -> JournalExpired:
    """The same error, with where to go on."""
    return JournalExpired(error.message, next_step=f"The result is at /v1/jobs/{job.id}.")
