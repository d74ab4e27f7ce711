"""Publishes again what has waited too long for its ledger, and queues it. Knows records and messages, no gateway.

A gateway that dies between writing a job down and queueing it, or a broker that was away, leaves it ACCEPTED. Any
number of feeders may look; a message too many is recognised later.
"""

from dataclasses import replace

import structlog

from headrace.contract.errors import BlobDamaged, BlobNotFound
from headrace.contract.job import State
from headrace.ledger.base import Ledger
from headrace.ledger.fleet_jobs import FleetJobs
from headrace.ledger.message import shelve, write
from headrace.store.blobs import BlobStore

AT_ONCE = 50

log = structlog.get_logger(__name__)


class Republisher:
    def __init__(self, jobs: FleetJobs, ledger: Ledger, blobs: BlobStore, older_than_s: float) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._blobs = blobs
        self._older_than_ms = round(older_than_s * 1000)

    def turn(self) -> int:
        """How many were published. Raises StoreUnavailable, which LedgerUnavailable is one of."""
        published = 0
        for job_id in self._jobs.overdue(self._older_than_ms, AT_ONCE):
            published += self._publish(job_id)
        return published

    def _publish(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        if job is None or job.state is not State.ACCEPTED:
            return False  # another one was faster
        body_hash = self._jobs.body_hash(job)
        try:
            job = self._jobs.whole(job)
        except (BlobNotFound, BlobDamaged) as error:
            # Nothing can be published of it. Queued, it ends with this error, where its client sees it.
            log.error("ledger job without a prompt", job=job_id, reason=error.message)
        else:
            body = write(job, body_hash=body_hash, deadline_at=job.deadline_at)
            self._ledger.publish(shelve(self._blobs, job, body))
        left = None if job.deadline_at is None else max(1, job.deadline_at - self._jobs.now_ms())
        self._jobs.accept(replace(job, deadline_at=left), body_hash)
        log.info("ledger job published again", job=job_id)
        return True
