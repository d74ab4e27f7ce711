"""What the feeder asks Redis about jobs, in few round trips. Knows keys and records, not what is decided by them."""

from collections.abc import Sequence
from typing import Any

import redis

from headrace.contract.job import Job, State
from headrace.queue.base import AcceptReply, Timing
from headrace.queue.redis import RedisQueue
from headrace.store import keys, records
from headrace.store.connection import store_errors
from headrace.store.journal import Journal
from headrace.store.payloads import Payloads


class FleetJobs:
    """Every method raises StoreUnavailable; those that reach for a large prompt or result also BlobsUnavailable,
    BlobNotFound and BlobDamaged."""

    def __init__(self, client: redis.Redis, timing: Timing, payloads: Payloads) -> None:
        self._client = client
        self._result_ttl_ms = timing.result_ttl_ms
        self._payloads = payloads
        self._queue = RedisQueue(client, timing, payloads=payloads)
        self._journal = Journal(client, payloads)

    def states(self, job_ids: Sequence[str]) -> dict[str, State]:
        """Of those that have a record."""
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(keys.job(job_id), "state")
            answers = pipe.execute() if job_ids else []
        return {
            job_id: State(state.decode()) for job_id, state in zip(job_ids, answers, strict=True) if state is not None
        }

    def get(self, job_id: str) -> Job | None:
        """The record; its prompt may lie elsewhere."""
        return self._queue.get(job_id)

    def now_ms(self) -> int:
        """By the server's clock, the only one that deadlines are told by."""
        with store_errors():
            seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def accept(self, job: Job, body_hash: str) -> AcceptReply:
        return self._queue.accept(job, body_hash=body_hash)

    def result(self, job_id: str) -> bytes | None:
        """As Redis keeps it; None when there is none any more."""
        choices = self._journal.result(job_id)
        return None if choices is None else records.pack_result(choices)

    def let_go(self, job: Job) -> None:
        """The ledger has what it needs of an ended job: record and result stay as long as those of any other."""
        if job.state is State.DEAD:
            return  # until somebody purges it
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for key in (keys.job(job.id), keys.result(job.id)):
                pipe.pexpire(key, self._result_ttl_ms)
            pipe.execute()

    def overdue(self, older_than_ms: int, limit: int) -> list[str]:
        """Jobs that have been ACCEPTED for so long, oldest first: nobody may be left who wanted to queue them."""
        before = self.now_ms() - older_than_ms
        with store_errors():
            found: list[Any] = self._client.zrangebyscore(keys.ACCEPTED, "-inf", before, start=0, num=limit)
        return [job_id.decode() for job_id in found]

    def whole(self, job: Job) -> Job:
        """With its prompts, wherever they lie."""
        return self._payloads.fetch_prompts(job)

    def body_hash(self, job: Job) -> str:
        """Of the request that made it, as its idempotency key has it; '' without one."""
        if not job.idem_key:
            return ""
        with store_errors():
            found = self._client.hget(keys.idempotency(job.tenant, job.idem_key), "body_hash")
        return found.decode() if isinstance(found, bytes) else ""
