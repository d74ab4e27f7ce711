"""Accepts a job only once replicas of Redis have it too: WAIT. Knows the road in and the server's answer, no job."""

from dataclasses import dataclass

import redis.asyncio

from headrace.contract.errors import StoreUnavailable
from headrace.contract.job import Job
from headrace.queue.base import AcceptReply, Outcome
from headrace.store import keys
from headrace.store.connection import store_errors
from headrace.submission.submit import AsyncQueue

_TTL_MS = 10_000


@dataclass(frozen=True, slots=True)
class ReplicatedQueue:
    """The two verbs that submit needs. `replicas` of them must have a job within `within_ms`."""

    queue: AsyncQueue
    client: redis.asyncio.Redis
    replicas: int
    within_ms: int

    async def accept(self, job: Job, *, body_hash: str = "") -> AcceptReply:
        """As the queue's own. Raises StoreUnavailable when too few replicas have the job in time, too: it is there all
        the same, and found by its idempotency key."""
        reply = await self.queue.accept(job, body_hash=body_hash)
        if reply.outcome in (Outcome.OK, Outcome.EXISTS):
            await self._confirm()
        return reply

    async def get(self, job_id: str) -> Job | None:
        return await self.queue.get(job_id)

    async def _confirm(self) -> None:
        """WAIT speaks of the last write of its own connection, so one is made: the job may have been written through
        another, or long ago under the same key."""
        with store_errors():
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.set(keys.PROBE, b"1", px=_TTL_MS)
                pipe.wait(self.replicas, self.within_ms)
                _, have = await pipe.execute()
        if have < self.replicas:
            raise StoreUnavailable(
                f"{have} of {self.replicas} replicas have the job.",
                next_step="Submit it again with the same Idempotency-Key.",
            )
