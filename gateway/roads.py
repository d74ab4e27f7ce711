"""Several jobs followed at once, as one stream of what an OpenAI client is told. Knows roads, not who listens."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeGuard

from gateway.cursor import Cursor
from gateway.relay import Relay
from gateway.transcript import NewStream
from headrace.cancelling import end_tasks
from headrace.contract.events import Cancelled, Completed, Delta, Event, Expired, Failed, Started
from headrace.contract.job import Job

MOST_WAITING = 64
"""Events that wait for a slow client; beyond it the roads are not pulled, and the journal keeps the rest."""
_LOOK_S = 60.0

Said = Started | Delta | Completed | Failed | Cancelled | Expired
"""Of `Started` only one that says that another model begins."""


class Roads:
    """What is heard from some jobs, in the order in which it comes. Not for two tasks at once."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[tuple[int, Said | Exception]] = asyncio.Queue(MOST_WAITING)

    async def next(self, timeout_s: float) -> tuple[int, Said] | None:
        """Which job it was, by its place, and what it said; None when nothing came in this time.

        Raises what its road raised: StoreUnavailable, JournalExpired or JobNotFound.
        """
        try:
            if self._heard.empty():
                async with asyncio.timeout(timeout_s):
                    number, said = await self._heard.get()
            else:
                number, said = self._heard.get_nowait()
        except TimeoutError:
            return None
        if isinstance(said, Exception):
            raise said
        return number, said

    async def follow(self, relay: Relay, number: int, job: Job, new_stream: NewStream) -> None:
        """One job from its first event to its last."""
        try:
            async with relay.follow(job, Cursor.start(job.request.n), new_stream) as road:
                while not road.ended:
                    event = await road.next(_LOOK_S)
                    if _matters(event, job):
                        await self._heard.put((number, event))
        except Exception as error:  # noqa: BLE001 - raised again by `next`, to whoever waits for this job
            await self._heard.put((number, error))


def _matters(event: Event | None, job: Job) -> TypeGuard[Said]:
    return event.revision != job.revision if isinstance(event, Started) else isinstance(event, Said)


@asynccontextmanager
async def follow_all(relay: Relay, jobs: Sequence[Job], new_streams: Sequence[NewStream]) -> AsyncIterator[Roads]:
    """One task for each job; they are gone when the context is left."""
    roads = Roads()
    tasks = [
        asyncio.create_task(roads.follow(relay, number, job, new_stream))
        for number, (job, new_stream) in enumerate(zip(jobs, new_streams, strict=True))
    ]
    try:
        yield roads
    finally:
        await end_tasks(*tasks)
