"""Large prompts and results, awaited: each call to the blob store in one of a few threads that do nothing else.

Knows threads and patience, not what is put where. A blob store that hangs holds up those who wait for a blob, and takes
no thread from anybody else of this event loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headrace.contract.errors import BlobsUnavailable
from headrace.contract.job import Job, Lease
from headrace.store.blobs import BlobStore
from headrace.store.payloads import ID_BYTES, INLINE, Payloads

T = TypeVar("T")

THREADS = 8
LIMIT_S = 30.0
"""Of one call, the wait for a thread included."""


class AsyncPayloads:
    """`Payloads` for an event loop. Every method raises BlobsUnavailable after `limit_s` too."""

    def __init__(self, payloads: Payloads = INLINE, *, limit_s: float = LIMIT_S) -> None:
        self._payloads = payloads
        self._limit_s = limit_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")

    async def shelve_prompt(self, job: Job) -> Job:
        requests = (job.request, *([job.fallback.request] if job.fallback else []))
        if not any(self._payloads.is_large(ID_BYTES * len(request.prompt_ids)) for request in requests):
            return job
        return await self._run(lambda: self._payloads.shelve_prompt(job))

    async def fetch_prompt(self, job: Job) -> Job:
        return await self._run(lambda: self._payloads.fetch_prompt(job)) if job.prompt_ref else job

    async def fetch_prompts(self, job: Job) -> Job:
        return await self._run(lambda: self._payloads.fetch_prompts(job)) if _is_shelved(job) else job

    async def drop_prompt(self, job: Job) -> None:
        if _is_shelved(job):
            await self._run(lambda: self._payloads.drop_prompt(job))

    async def shelve_result(self, lease: Lease, packed: bytes) -> str:
        if not self._payloads.is_large(len(packed)):
            return ""
        return await self._run(lambda: self._payloads.shelve_result(lease, packed))

    async def fetch_result(self, job_id: str, ref: str) -> bytes:
        return await self._run(lambda: self._payloads.fetch_result(job_id, ref))

    async def with_blobs(self, call: Callable[[BlobStore], T]) -> T:
        """What `call` makes of the blob store itself."""
        blobs = self._payloads.blobs
        if blobs is None:
            raise BlobsUnavailable("This process has no blob store.", next_step="Set blobs.url.")
        return await self._run(lambda: call(blobs))

    def close(self) -> None:
        """Waits for nothing: a call under way is left to its own time limits."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._limit_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError:
            raise BlobsUnavailable(
                f"The blob store did not answer within {self._limit_s:g} s.",
                next_step="Look at the disk or the bucket.",
            ) from None


def _is_shelved(job: Job) -> bool:
    return bool(job.prompt_ref or (job.fallback and job.fallback.prompt_ref))
