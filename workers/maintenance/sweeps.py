"""What is swept: jobs that nobody holds, entries and blobs whose record is gone. Knows the store and no Celery.

Each may be run at any time, by any number at once, and be killed in the middle: what it leaves, the next one finds.
"""

import asyncio
from collections.abc import Mapping
from typing import TypedDict

from headrace.queue.base import ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.settings import Settings
from headrace.store import keys
from headrace.store.blob_sweep import store_time, sweep
from headrace.store.blobs import open_blobs
from headrace.store.connection import connect, connect_async, store_errors
from headrace.store.job_index import BATCH, JobIndex
from headrace.store.ledger_blobs import sweep_outlived

MOST_BATCHES = 1_000
"""Of one index in one sweep: a hundred thousand jobs, the oldest first."""

Counts = Mapping[str, int]
"""What a sweep did. All of them zero when there was nothing to do."""


def reap(settings: Settings) -> Counts:
    """One tick of the reaper, for a fleet in which no gateway and no worker lives. Raises StoreUnavailable."""
    with connect(settings.redis.url, **_waits(settings)) as client:
        reply = RedisQueue(client, settings.queue.timing()).reap(ReapRequest())
    return {"requeued": len(reply.requeued), "expired": len(reply.expired), "dead": len(reply.dead)}


def trim_index(settings: Settings) -> Counts:
    """Drop index entries whose record is gone, of every tenant. Raises StoreUnavailable."""
    return {"dropped": asyncio.run(_trim(settings))}


def sweep_blobs(settings: Settings) -> Counts:
    """Delete blobs that no record names any more, and old ones of a ledger. Raises StoreUnavailable, BlobsUnavailable
    and SetupError."""
    with connect(settings.redis.url, **_waits(settings)) as client:
        blobs = open_blobs(settings)
        now = store_time(blobs)
        swept = sweep(blobs, client, now)
        outlived = sweep_outlived(blobs, client, now, settings.ledger.retention_s * 1000)
    return {"deleted": swept.deleted + outlived}


async def _trim(settings: Settings) -> int:
    dropped = 0
    client = connect_async(settings.redis.url, **_waits(settings))
    try:
        with store_errors():
            indexes = [name async for name in client.scan_iter(match=keys.job_index("*"), count=1000)]
            sizes = {name: await client.zcard(name) for name in indexes}
        for name, size in sizes.items():
            index = JobIndex(client, name.decode().removeprefix(keys.job_index("")))
            for _ in range(min(MOST_BATCHES, size // BATCH + 1)):
                dropped += await index.tidy()
    finally:
        await client.aclose()
    return dropped


class _Waits(TypedDict):
    connect_timeout_s: float
    socket_timeout_s: float


def _waits(settings: Settings) -> _Waits:
    return _Waits(connect_timeout_s=settings.redis.connect_timeout_s, socket_timeout_s=settings.redis.socket_timeout_s)
