"""The blobs that a ledger needs to outlive Redis: how their keys begin, and when they go. Knows ages, and no message.

They must outlive every message, so they go by their age alone; a claim check stays while its job lives, since its
message may be all there is of it tomorrow.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import redis

from headrace.contract.ids import born_ms, is_job_id
from headrace.contract.job import TERMINAL
from headrace.store import keys
from headrace.store.blobs import Blob, BlobStore
from headrace.store.connection import store_errors

CLAIM_CHECKS = "ledger/"
"""Messages too large for a broker, by job."""
DONE = "done/"
"""Marks of jobs that have ended, and their results."""
PARKED = "parked/"
"""Messages that are none, with the reason, by their sha256: for a person."""

PAGE = 500


def outlived(found: Sequence[Blob], living: Collection[str], now: int, kept_ms: int) -> tuple[str, ...]:
    """Keys to delete at `now` (ms): put longer ago than `kept_ms`, and no claim check of one of the `living` jobs."""
    return tuple(
        blob.key
        for blob in found
        if now - blob.modified_at > kept_ms and not (blob.key.startswith(CLAIM_CHECKS) and _named(blob.key) in living)
    )


def sweep_outlived(blobs: BlobStore, client: redis.Redis, now: int, kept_ms: int) -> int:
    """One pass at `now`, milliseconds of the store's clock; how many were deleted. Any number may run at once. Raises
    StoreUnavailable. For a store that is known to be this Redis's: see `check_fleet`."""
    deleted = 0
    for prefix in (CLAIM_CHECKS, DONE, PARKED):
        old = _born_before(blobs.listing(prefix), now - kept_ms)
        while found := tuple(islice(old, PAGE)):
            living = _living(client, [_named(blob.key) for blob in found if prefix == CLAIM_CHECKS])
            for key in outlived(found, living, now, kept_ms):
                blobs.delete(key)
                deleted += 1
    return deleted


def _born_before(listing: Iterator[Blob], moment: int) -> Iterator[Blob]:
    """The ids of jobs sort by birth, and so do keys: the young need not even be listed. What bears no job's name is
    looked at each time."""
    for blob in listing:
        named = _named(blob.key)
        if is_job_id(named) and born_ms(named) > moment:
            return
        yield blob


def _named(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]


def _living(client: redis.Redis, jobs: Sequence[str]) -> frozenset[str]:
    with store_errors(), client.pipeline(transaction=False) as pipe:
        for job_id in jobs:
            pipe.hget(keys.job(job_id), "state")
        states: list[Any] = pipe.execute() if jobs else []
    ended = {state.value.encode() for state in TERMINAL}
    return frozenset(
        job_id for job_id, state in zip(jobs, states, strict=True) if state is not None and state not in ended
    )
