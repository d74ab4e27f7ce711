"""`Prefer: wait=N` (RFC 7240): hold the answer until the job has ended, for so long. Knows the header and the wait."""

import asyncio
import re
from collections.abc import Iterable

from fastapi import Request

from gateway.presence import Presence
from gateway.reader import text_streams
from gateway.roads import follow_all
from gateway.services import Services
from headrace.contract.errors import HeadraceError
from headrace.contract.events import TERMINAL_TYPES
from headrace.contract.job import Job

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


async def ended_within(services: Services, request: Request, job: Job, seconds: int) -> Job:
    """The job's record once it has ended or the time has passed. It is durable whatever happens here, so trouble with
    the store and the end of this gateway only cut the wait short. Raises ClientGone."""
    if job.ended:
        return job
    try:
        async with asyncio.timeout(seconds):
            await Presence(request.receive, services.closing).during(_end(services, job))
    except (TimeoutError, HeadraceError):
        pass
    try:
        return await services.queue.get(job.id) or job
    except HeadraceError:
        return job


async def _end(services: Services, job: Job) -> None:
    new_stream = await text_streams(services, job)
    async with follow_all(services.relay, [job], [new_stream]) as roads:
        while True:
            heard = await roads.next(MOST_S)
            if heard is not None and heard[1].type in TERMINAL_TYPES:
                return
