"""`/v1/dlq`: the dead jobs that wait for a person, page by page; redrive and purge, a bounded number at once.

Knows HTTP's side; whoever wants many of them redriven, or at a rate, asks again with the cursor of the answer.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog
from fastapi import APIRouter, Request, Response

from gateway.api_document import json_body, query_parameters
from gateway.body import read_json
from gateway.errors import json_response
from gateway.lookup import model_of
from gateway.services import Services
from gateway.snapshot import snapshot_of
from gateway.submitting import BODY_TIMEOUT_S
from headrace.contract.dead_letter_query import DeadLetterFilter
from headrace.contract.errors import ErrorInfo, JobNotFound, StoreUnavailable
from headrace.contract.ids import is_job_id
from headrace.contract.job import Job
from headrace.ledger.done import DoneMarks
from headrace.openai.dead_letters import (
    MOST_AT_ONCE,
    PARAMETERS,
    LettersBody,
    PurgeBody,
    RedriveBody,
    letters_page,
    letters_query,
    outcomes_page,
)
from headrace.openai.schema import parse
from headrace.store.dead_letters import DeadLetters
from headrace.submission.redrive import Redriver

LISTED = 20

_log = structlog.get_logger(__name__)


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/dlq", tags=["dead letters"])
    letters = DeadLetters(services.queue.client, services.payloads, lambda letter: _settle(services, letter))
    redriver = Redriver(
        services.submitter.queue,
        services.cards,
        letters,
        services.payloads,
        services.settings.queue.timing(),
        tell=lambda job: services.metrics.jobs.labels(job.kind.value, job.lane, job.job_class.value).inc(),
    )

    @routes.get("", openapi_extra={"parameters": query_parameters(PARAMETERS)})
    async def list_letters(request: Request) -> Response:
        """Dead jobs of every lane, the latest death first, each with its reason and what went wrong before."""
        asked = letters_query(request.query_params.multi_items())
        page = await letters.page(await _wanted(services, asked), limit=asked.limit or LISTED, after=asked.after())
        return json_response(letters_page(page.letters, page.after))

    @routes.post("/redrive", openapi_extra=json_body(RedriveBody))
    async def redrive(request: Request) -> Response:
        """Accept up to `limit` (100) of the oldest again, as new jobs with `redrive_of`. Safe to say again: a letter is
        redriven once. Go on with `cursor` while `has_more`: what dies after the first call is left alone."""
        asked = parse(RedriveBody, await read_json(request, services.settings.gateway.max_body_bytes, BODY_TIMEOUT_S))
        page = await redriver.redrive(
            await _wanted(services, asked),
            limit=asked.limit or MOST_AT_ONCE,
            after=asked.after(),
            deadline_ms=asked.deadline_ms,
            dry_run=bool(asked.dry_run),
        )
        done = [
            {"id": each.letter_id, "redriven_as": each.job_id or None} for each in page.outcomes if each.error is None
        ]
        refused = {each.letter_id: each.error for each in page.outcomes if each.error is not None}
        for each in done:
            _log.info("gateway.redriven", job=each["id"], redriven_as=each["redriven_as"])
        return json_response(outcomes_page("dead_letter.redrive", done, refused, page.after))

    @routes.post("/purge", openapi_extra=json_body(PurgeBody))
    async def purge(request: Request) -> Response:
        """Delete up to `limit` (100) of the oldest for good: record, events and prompt. Go on with `cursor` while
        `has_more`: what dies after the first call is left alone."""
        asked = parse(PurgeBody, await read_json(request, services.settings.gateway.max_body_bytes, BODY_TIMEOUT_S))
        wanted, after = await _wanted(services, asked), asked.after()
        absent = [each.job_id for each in await letters.absent(wanted.ids)] if after is None else []
        page = await letters.page(wanted, limit=asked.limit or MOST_AT_ONCE, after=after, oldest_first=True)
        gone = await _purge(letters, page.letters, dry_run=bool(asked.dry_run))
        done = [{"id": job_id} for job_id, purged in gone.items() if purged]
        left = [job_id for job_id, purged in gone.items() if not purged]
        refused = dict.fromkeys(absent + left, ErrorInfo(JobNotFound.code, "It is no dead letter."))
        go_on = page.after if len(gone) == len(page.letters) else page.behind(page.letters[len(gone) - 1])
        return json_response(outcomes_page("dead_letter.purge", done, refused, go_on))

    @routes.get("/{job_id}")
    async def show(job_id: str) -> Response:
        """One dead job in full: its request as it was frozen, prompt and answer so far as text, and every event."""
        letter = await _find(letters, job_id)
        return json_response(await snapshot_of(services, letter))

    @routes.delete("/{job_id}")
    async def delete(job_id: str) -> Response:
        """Purge one dead job."""
        letter = await _find(letters, job_id)
        deleted = await _purge_one(letters, letter)
        return json_response({"id": letter.id, "object": "dead_letter", "deleted": deleted})

    return routes


async def _wanted(services: Services, asked: LettersBody) -> DeadLetterFilter:
    wanted = asked.wanted()
    return replace(wanted, model=await model_of(services, wanted.model)) if wanted.model else wanted


async def _settle(services: Services, letter: Job) -> None:
    """A message in a ledger that comes again must find that its job is done, or it would bring it back."""
    if letter.ledger_receipt:
        await services.payloads.with_blobs(lambda blobs: DoneMarks(blobs).put(letter, None))


async def _purge(letters: DeadLetters, found: Sequence[Job], *, dry_run: bool) -> dict[str, bool]:
    """By their ids whether they were purged: somebody may have redriven one meanwhile. A store that goes away on the
    way ends it early; raises StoreUnavailable when it was away from the beginning."""
    gone: dict[str, bool] = {}
    for letter in found:
        try:
            gone[letter.id] = dry_run or await _purge_one(letters, letter)
        except StoreUnavailable:
            if not gone:
                raise
            break
    return gone


async def _purge_one(letters: DeadLetters, letter: Job) -> bool:
    purged = await letters.purge(letter.id)
    if purged:
        _log.info("gateway.purged", job=letter.id)
    return purged


async def _find(letters: DeadLetters, job_id: str) -> Job:
    letter = await letters.find(job_id) if is_job_id(job_id) else None
    if letter is None:
        raise JobNotFound(
            f"There is no dead letter {job_id[:80]!r}.",
            next_step="It was purged, redriven or never dead: look at /v1/jobs/<id>.",
        )
    structlog.contextvars.bind_contextvars(job=job_id)
    return letter
