"""The Queue on Redis for threads, as workers use it. Knows how to send calls, not what they do."""

from collections.abc import Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import NoScriptError

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import Job, Lease
from headrace.queue.base import (
    AcceptReply,
    Append,
    AppendReply,
    ClaimRequest,
    Ending,
    FinishReply,
    ReapReply,
    ReapRequest,
    RenewReply,
    Timing,
)
from headrace.queue.scripts import SCRIPTS
from headrace.queue.verbs import Call, Verbs, job_from_flat, pack, parse_all
from headrace.store import keys
from headrace.store.connection import store_errors
from headrace.store.payloads import INLINE, Payloads

T = TypeVar("T")


class RedisQueue:
    """A `Queue` for threads. `payloads` says where large prompts and results go; without it they stay in Redis.

    What it claims comes without a prompt that lies in the blob store: see `Payloads.fetch_prompt`. The lease runs from
    the claim on, and whoever took it has to know of it before anything is read that may take long.

    `offset_ms` shifts the server's clock and is for tests only.
    """

    def __init__(self, client: redis.Redis, timing: Timing, *, payloads: Payloads = INLINE, offset_ms: int = 0) -> None:
        self.client = client
        self._payloads = payloads
        self.verbs = Verbs(timing, offset_ms)

    def accept(self, job: Job, *, body_hash: str = "", hold: bool = False) -> AcceptReply:
        return self._run(self.verbs.accept(self._payloads.shelve_prompt(job), body_hash, hold))

    def claim(self, request: ClaimRequest) -> tuple[Job, ...]:
        return self._run(self.verbs.claim(request))

    def renew(self, worker: str, leases: Sequence[Lease]) -> RenewReply:
        return self._run(self.verbs.renew(worker, leases))

    def append(self, writes: Sequence[Append]) -> list[AppendReply]:
        return self._run_all([self.verbs.append(write) for write in writes])

    def retry(self, lease: Lease, in_ms: int, error: ErrorInfo) -> FinishReply:
        return self._run(self.verbs.retry(lease, in_ms, error))

    def finish(self, lease: Lease, ending: Ending) -> FinishReply:
        packed = pack(ending)
        ref = self._payloads.shelve_result(lease, packed)
        return self._run(self.verbs.finish(lease, ending, packed, ref))

    def release(self, lease: Lease) -> FinishReply:
        return self._run(self.verbs.release(lease))

    def cancel(self, job_id: str) -> FinishReply:
        return self._run(self.verbs.cancel(job_id))

    def reap(self, request: ReapRequest) -> ReapReply:
        return self._run(self.verbs.reap(request))

    def get(self, job_id: str) -> Job | None:
        with store_errors():
            return job_from_flat(self.client.hgetall(keys.job(job_id)))

    def _run(self, call: Call[T]) -> T:
        script = SCRIPTS[call.script]
        with store_errors():
            try:
                raw = self.client.evalsha(script.sha, 0, *call.args)
            except NoScriptError:
                raw = self.client.eval(script.source, 0, *call.args)
        return call.parse(raw)

    def _run_all(self, calls: Sequence[Call[T]]) -> list[T]:
        with store_errors():
            raw = self._pipeline(calls)
            if any(isinstance(answer, NoScriptError) for answer in raw):
                # A restarted server has forgotten the scripts. All are sent again: each is idempotent.
                for name in {call.script for call in calls}:
                    self.client.script_load(SCRIPTS[name].source)
                raw = self._pipeline(calls)
            return parse_all(calls, raw)

    def _pipeline(self, calls: Sequence[Call[T]]) -> list[Any]:
        with self.client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.evalsha(SCRIPTS[call.script].sha, 0, *call.args)
            return pipe.execute(raise_on_error=False)
