"""Deletes prompts and results that no record refers to any more. Knows records and ages; decides before it deletes.

A Redis that was emptied, or is another fleet's, knows no job of this store, and would doom every blob in it. So the two
know each other: an id lies in both, and where it is not the same nothing is deleted.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from headrace.contract.errors import BlobsUnavailable, SetupError
from headrace.contract.job import TERMINAL
from headrace.store import keys
from headrace.store.blobs import Blob, BlobStore, read_all
from headrace.store.connection import store_errors
from headrace.store.payloads import BLOB, PROMPTS, RESULTS, job_of

GRACE_MS = 3600 * 1000
"""A blob is put before the record that names it, so a young one is left alone."""

PAGE = 500
FLEET = "fleet"
"""The blob that holds the fleet's id."""
CLOCK = "clock"
"""The blob that is put anew to see what time it is."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a record has to say of its job's blobs."""

    ended: bool
    refs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Swept:
    seen: int = 0
    deleted: int = 0


def unclaimed(found: Sequence[Blob], claims: Mapping[str, Claims], now: int) -> tuple[str, ...]:
    """Keys to delete at `now` (ms): older than the grace, and their record is gone or has ended without them.

    `claims` has an entry for each job whose record is there. Keys that are none of ours are left alone.
    """
    doomed = []
    for blob in found:
        job_id = job_of(blob.key)
        claim = claims.get(job_id or "")
        wanted = claim is not None and (not claim.ended or BLOB + blob.key in claim.refs)
        if job_id is not None and not wanted and now - blob.modified_at > GRACE_MS:
            doomed.append(blob.key)
    return tuple(doomed)


def sweep(blobs: BlobStore, client: redis.Redis, now: int) -> Swept:
    """One pass over all prompts and results at `now`, milliseconds of the store's clock. Any number may run at once.

    Raises SetupError when store and Redis are not of one fleet, and StoreUnavailable; it has deleted nothing then that
    it was not sure of.
    """
    check_fleet(blobs, client)
    seen = deleted = 0
    for prefix in (PROMPTS, RESULTS):
        listing = blobs.listing(prefix)
        while found := tuple(islice(listing, PAGE)):
            doomed = unclaimed(found, _claims(client, found), now)
            for key in doomed:
                blobs.delete(key)
            seen, deleted = seen + len(found), deleted + len(doomed)
    return Swept(seen, deleted)


def store_time(blobs: BlobStore) -> int:
    """What the store's own clock says, by which blobs are dated: a host whose clock is an hour ahead would take the
    youngest for old, and delete what is just being submitted. Raises BlobsUnavailable."""
    blobs.put(CLOCK, b"")
    found = blobs.find(CLOCK)
    if found is None:
        raise BlobsUnavailable("The blob store has not kept what was put.", next_step="Look at its rules of retention.")
    return found.modified_at


def check_fleet(blobs: BlobStore, client: redis.Redis) -> None:
    """Raises SetupError unless the store is this Redis's. A store that is nobody's becomes this Redis's."""
    with store_errors():
        if blobs.find(FLEET) is None:
            client.set(keys.FLEET, secrets.token_hex(16), nx=True)
            blobs.put_if_absent(FLEET, _fleet(client))
        known = _fleet(client)
    if not known or read_all(blobs, FLEET) != known:
        raise SetupError(
            "The blob store belongs to another Redis than this one, or to this one before it was emptied: nothing in it"
            " is swept.",
            next_step=f"Check redis.url and blobs.url. To let this Redis have the store, delete the blob {FLEET!r}:"
            " blobs of jobs that this Redis does not know are swept then.",
        )


def _fleet(client: redis.Redis) -> bytes:
    found = client.get(keys.FLEET)
    return found if isinstance(found, bytes) else b""


def _claims(client: redis.Redis, found: Sequence[Blob]) -> dict[str, Claims]:
    jobs = sorted({job_id for blob in found if (job_id := job_of(blob.key)) is not None})
    with store_errors(), client.pipeline(transaction=False) as pipe:
        for job_id in jobs:
            pipe.hmget(keys.job(job_id), ["state", "prompt_ref", "result_ref"])
        answers: list[list[Any]] = pipe.execute()
    return {
        job_id: Claims(state.decode() in TERMINAL, frozenset(ref.decode() for ref in refs if ref))
        for job_id, (state, *refs) in zip(jobs, answers, strict=True)
        if state is not None
    }
