"""Accepts a job only once replicas of Redis have it too: WAIT. Knows the road in and the server's answer, no job."""

from dataclasses import dataclass

import redis.asyncio

from headrace.contract.errors import StoreUnavailable
from headrace.contract.job import Job
from headrace.queue.base import AcceptReply, Outcome
from headrace.settings import RedisSettings
from headrace.store import keys
from headrace.store.connection import connect_async, store_errors
from headrace.submission.submit import AsyncQueue

WAITERS = 16
"""Connections of a gateway that may wait for replicas at one time. No other call needs one of them, so replicas that
are slow or gone hold up nothing but submits."""

_TTL_MS = 10_000
_AGAIN = "Submit it again with the same Idempotency-Key."


@dataclass(frozen=True, slots=True)
class ReplicatedQueue:
    """The two verbs that submit needs. `replicas` of them must have a job within `within_ms`; `client` is for the
    waits alone."""

    queue: AsyncQueue
    client: redis.asyncio.Redis
    replicas: int
    within_ms: int

    async def accept(self, job: Job, *, body_hash: str = "") -> AcceptReply:
        """As the queue's own. Raises StoreUnavailable when too few replicas have the job in time, too: it is there all
        the same, and found by its idempotency key. So it does when Redis failed over meanwhile and lost the job."""
        reply = await self.queue.accept(job, body_hash=body_hash)
        if reply.outcome not in (Outcome.OK, Outcome.EXISTS) or await self._confirm(reply.job_id):
            return reply
        if reply.outcome is Outcome.EXISTS and await self.queue.accept(job, body_hash=body_hash) == reply:
            return reply  # known still, so it is past its retention and not lost
        raise StoreUnavailable("Redis failed over, and the new primary does not have the job.", next_step=_AGAIN)

    async def get(self, job_id: str) -> Job | None:
        return await self.queue.get(job_id)

    async def close(self) -> None:
        await self.client.aclose()

    async def _confirm(self, job_id: str) -> bool:
        """Whether there is such a job, and then the replicas have it. Another server may answer than the one that took
        the job, so it is looked for where the replicas are counted. WAIT speaks of the last write of its own
        connection, so one is made: the job's may have gone through another, or be long ago."""
        try:
            with store_errors():
                async with self.client.pipeline(transaction=False) as pipe:
                    pipe.exists(keys.job(job_id))
                    pipe.set(keys.PROBE, b"1", px=_TTL_MS)
                    pipe.wait(self.replicas, self.within_ms)
                    there, _, have = await pipe.execute()
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"Whether the replicas have the job is not known: {error.message}",
                next_step=f"{_AGAIN} {error.next_step}",
            ) from error
        if there and have < self.replicas:
            raise StoreUnavailable(f"{have} of {self.replicas} replicas have the job.", next_step=_AGAIN)
        return bool(there)


def replicated(queue: AsyncQueue, settings: RedisSettings) -> ReplicatedQueue:
    """With connections of its own: who has no turn on one of them within a wait and a timeout is told so. Close it."""
    client = connect_async(
        settings.url,
        connect_timeout_s=settings.connect_timeout_s,
        socket_timeout_s=settings.socket_timeout_s,
        connections=WAITERS,
        turn_s=settings.wait_ms / 1000 + settings.socket_timeout_s,
    )
    return ReplicatedQueue(queue, client, settings.wait_replicas, settings.wait_ms)
