"""`Prefer: wait=N` (RFC 7240): hold the answer until the job has ended, for so long. Knows the header and the wait."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

from fastapi import Request

from gateway.cursor import Cursor
from gateway.presence import Presence
from gateway.services import Services
from headrace.contract.errors import HeadraceError
from headrace.contract.job import Job
from headrace.text.detokenizer import Pushed, TextStream

MOST_S = 60
_WAIT = re.compile(r'(?ai)\s*wait\s*=\s*(?:(\d{1,9})|"(\d{1,9})")\s*(?:;.*)?')


def preferred_wait(headers: Iterable[str]) -> int:
    """Seconds, at most MOST_S; 0 for no such preference. What is not understood is ignored, as the RFC asks, and of
    several the first one counts."""
    for preference in ",".join(headers).split(","):
        if preference.partition("=")[0].strip().lower() == "wait":
            found = _WAIT.fullmatch(preference)
            return min(int(found[1] or found[2]), MOST_S) if found else 0
    return 0


async def ended_within(services: Services, request: Request, job: Job, seconds: int) -> tuple[Job, bool]:
    """The job's record, and whether it was waited for: until it had ended, or all of the time. It is durable whatever
    happens here, so trouble with the store and the end of this gateway only cut the wait short. Raises ClientGone."""
    if job.ended:
        return job, True
    waited = True
    try:
        async with asyncio.timeout(seconds):
            await Presence(request.receive, services.closing).during(_end(services, job))
    except TimeoutError:
        pass
    except HeadraceError:
        waited = False
    with suppress(HeadraceError):
        job = await services.queue.get(job.id) or job
    return job, waited or job.ended


async def _end(services: Services, job: Job) -> None:
    async with services.relay.follow(job, Cursor.start(job.request.n), lambda _: _NoText()) as road:
        while not road.ended:
            await road.next(MOST_S)


class _NoText(TextStream):
    """Only the end is looked for: no text is made, so a job whose tokenizer is gone is waited for like any other."""

    __slots__ = ()

    def __init__(self) -> None:
        """Needs no tokenizer."""

    def push(self, ids: Sequence[int]) -> Pushed:
        return Pushed("", len(ids), stopped=False)

    def flush(self) -> str:
        return ""
