"""The submitting half of a ledger: a job is queued once the broker has confirmed its message. For an event loop.

    accept(hold) → publish, confirmed → accept → the client's 202

Dying in between leaves a record that is ACCEPTED, a message, or both: a feeder brings either to its end.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from headrace.contract.errors import LedgerUnavailable
from headrace.contract.job import Job, State
from headrace.ledger.base import Ledger, open_ledger
from headrace.ledger.message import shelve, write
from headrace.queue.base import AcceptReply, Outcome
from headrace.settings import Settings
from headrace.store.blobs import BlobStore, open_blobs

THREADS = 16
LIMIT_S = 12.0
"""Of one publication, the wait for a thread and one more try on a new connection included."""
RETRY_AFTER_S = 5.0


class HoldingQueue(Protocol):
    """What is needed of the queue, awaited."""

    async def accept(self, job: Job, *, body_hash: str = "", hold: bool = False) -> AcceptReply: ...

    async def get(self, job_id: str) -> Job | None: ...


class PromptShelf(Protocol):
    """Where large prompts lie, awaited."""

    async def fetch_prompts(self, job: Job) -> Job: ...


class Publisher:
    """Publishes from a few threads that do nothing else: a broker that hangs takes none from anybody."""

    def __init__(self, ledger: Ledger, blobs: BlobStore, *, limit_s: float = LIMIT_S) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._limit_s = limit_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ledger")

    async def publish(self, job: Job, body_hash: str, deadline_at: int | None) -> None:
        """Returns when the message is in the ledger. Raises LedgerUnavailable, or BlobsUnavailable for a large one; it
        may be in there all the same."""

        def run() -> None:
            self._ledger.publish(shelve(self._blobs, job, write(job, body_hash=body_hash, deadline_at=deadline_at)))

        try:
            async with asyncio.timeout(self._limit_s):
                await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except TimeoutError:
            raise LedgerUnavailable(
                f"The ledger did not confirm within {self._limit_s:g} s.", retry_after_s=RETRY_AFTER_S
            ) from None

    def close(self) -> None:
        """Waits for nothing: what is under way is left to its own time limits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._ledger.close()


def open_publisher(settings: Settings, blobs: BlobStore | None) -> Publisher | None:
    """None without a ledger. Waits for no broker. Raises SetupError."""
    ledger = open_ledger(settings)
    return None if ledger is None else Publisher(ledger, blobs or open_blobs(settings))


def scheme_of(url: str) -> str:
    return url.partition(":")[0]


class PublishingQueue:
    """The two verbs that submit needs, with a ledger in between. `scheme` is what its jobs' `ledger_receipt` says."""

    def __init__(
        self,
        queue: HoldingQueue,
        shelf: PromptShelf,
        publisher: Publisher,
        scheme: str,
    ) -> None:
        self._queue = queue
        self._shelf = shelf
        self._publisher = publisher
        self._scheme = scheme

    async def accept(self, job: Job, *, body_hash: str = "") -> AcceptReply:
        """As the queue's own. Raises LedgerUnavailable too: then the job is not queued, though a message of it may be
        in the ledger, and one with an idempotency key waits for the next try with it, or for a feeder's."""
        job = replace(job, ledger_receipt=self._scheme)
        reply = await self._queue.accept(job, body_hash=body_hash, hold=True)
        if reply.outcome is Outcome.OK:
            at = None if job.deadline_at is None else (reply.created_at or 0) + job.deadline_at
            await self._publisher.publish(job, body_hash, at)
            return await self._queue.accept(job, body_hash=body_hash)
        if reply.outcome is Outcome.EXISTS:
            await self._publish_again(reply.job_id, body_hash)
        return reply

    async def get(self, job_id: str) -> Job | None:
        return await self._queue.get(job_id)

    async def _publish_again(self, job_id: str, body_hash: str) -> None:
        """What an earlier try with the same key may have left in the middle."""
        job = await self._queue.get(job_id)
        if job is None or job.state is not State.ACCEPTED:
            return
        job = await self._shelf.fetch_prompts(job)
        await self._publisher.publish(job, body_hash, job.deadline_at)
        # The record has its deadline; this one would only count if the record had gone meanwhile.
        whole = None if job.deadline_at is None else job.deadline_at - (job.created_at or 0)
        await self._queue.accept(replace(job, deadline_at=whole), body_hash=body_hash)
