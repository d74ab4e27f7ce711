"""Reads what the oracle judges out of a store, and forgets a round's jobs as time would. Judges nothing."""

from collections.abc import Iterable
from typing import Any

import redis

from headrace.contract.errors import HeadraceError
from headrace.contract.events import Event
from headrace.contract.job import Job
from headrace.queue.verbs import job_from_flat
from headrace.store import keys
from headrace.store.beats import read_beats
from headrace.store.journal import Journal
from headrace.store.payloads import Payloads
from tests.chaos.oracle import Kept, Snapshot

SETS = ("hr:leases", "hr:delay", "hr:deadlines", "hr:accepted", "hr:held:*", "hr:lane:*")
DIVERGED, PAGES = "headrace_worker_diverged_total", "headrace_engine_kv_pages_used"


class Reader:
    """One store, and the blob store beside it."""

    def __init__(self, client: redis.Redis, payloads: Payloads) -> None:
        self._client = client
        self._journal = Journal(client, payloads)

    def job_ids(self, tenant: str = "default") -> tuple[str, ...]:
        """Of all records that there are."""
        found: Any = self._client.zrange(keys.job_index(tenant), 0, -1)
        return tuple(job_id.decode() for job_id in found)

    def unfinished(self) -> tuple[str, ...]:
        """Jobs that have not ended."""
        return tuple(job_id for job_id in self.job_ids() if (job := self._job(job_id)) is not None and not job.ended)

    def idle(self, workers: Iterable[str]) -> bool:
        """Whether these workers say that they are ready and hold nothing: no job, and no page of one. A worker forgets
        a job a moment before its engine has heard of it."""
        beats = {beat.worker: beat for beat in read_beats(self._client)}
        found = [beats.get(worker) for worker in workers]
        return all(
            beat is not None and beat.state == "ready" and beat.held == 0 and not beat.metrics["gauges"].get(PAGES, 0)
            for beat in found
        )

    def snapshot(self, workers: Iterable[str]) -> Snapshot:
        """Everything, and the beats of these workers."""
        living = frozenset(workers)
        return Snapshot(
            jobs={job_id: kept for job_id in self.job_ids() if (kept := self._kept(job_id)) is not None},
            members=self._members(),
            ttls=self._ttls(),
            beats={
                beat.worker: {
                    "held": beat.held,
                    "pages": beat.metrics["gauges"].get(PAGES, 0),
                    "diverged": beat.metrics["counters"].get(DIVERGED, 0),
                }
                for beat in read_beats(self._client)
                if beat.worker in living
            },
        )

    def forget(self) -> None:
        """The jobs that are there, as if their time were up."""
        for job_id in self.job_ids():
            job = self._job(job_id)
            gone = [keys.job(job_id), keys.journal(job_id), keys.result(job_id)]
            if job is not None and job.idem_key:
                gone.append(keys.idempotency(job.tenant, job.idem_key))
            if job is not None:
                self._client.zrem(keys.dlq(job.lane), job_id)
            self._client.delete(*gone)
            self._client.zrem(keys.job_index("default"), job_id)

    def _job(self, job_id: str) -> Job | None:
        return job_from_flat(self._client.hgetall(keys.job(job_id)))

    def _kept(self, job_id: str) -> Kept | None:
        job = self._job(job_id)
        if job is None:
            return None
        events: list[Event] = []
        try:
            while page := self._journal.read(job_id, events[-1].seq if events else 0):
                events += page
            result = self._journal.result(job_id)
        except HeadraceError:
            result = None  # the oracle misses it
        return Kept(job, tuple(events), result)

    def _members(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for pattern in SETS:
            for key in self._client.scan_iter(match=pattern, count=1000):
                kind: Any = self._client.type(key)
                members: Any = self._client.smembers(key) if kind == b"set" else self._client.zrange(key, 0, -1)
                found[key.decode()] = tuple(sorted(member.decode() for member in members))
        return found

    def _ttls(self) -> dict[str, int]:
        names = list(self._client.scan_iter(count=1000))
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.pttl(name)
            ttls = pipe.execute()
        # -2: gone since it was listed.
        return {name.decode(): ttl for name, ttl in zip(names, ttls, strict=True) if ttl != -2}
