"""The Queue on Redis for an event loop, as the gateway uses it. Knows how to send calls, not what they do."""

from collections.abc import Sequence
from typing import Any, TypeVar

import redis.asyncio
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
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.connection import store_errors

T = TypeVar("T")


class AsyncRedisQueue:
    """The same ten verbs, awaited. One client serves every task of an event loop.

    What it claims comes without a prompt that lies in the blob store: see `Payloads.fetch_prompt`.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        timing: Timing,
        *,
        payloads: AsyncPayloads | None = None,
        offset_ms: int = 0,
    ) -> None:
        self.client = client
        self._payloads = payloads or AsyncPayloads()
        self.verbs = Verbs(timing, offset_ms)

    async def accept(self, job: Job, *, body_hash: str = "", hold: bool = False) -> AcceptReply:
        return await self._run(self.verbs.accept(await self._payloads.shelve_prompt(job), body_hash, hold))

    async def claim(self, request: ClaimRequest) -> tuple[Job, ...]:
        return await self._run(self.verbs.claim(request))

    async def renew(self, worker: str, leases: Sequence[Lease]) -> RenewReply:
        return await self._run(self.verbs.renew(worker, leases))

    async def append(self, writes: Sequence[Append]) -> list[AppendReply]:
        return await self._run_all([self.verbs.append(write) for write in writes])

    async def retry(self, lease: Lease, in_ms: int, error: ErrorInfo) -> FinishReply:
        return await self._run(self.verbs.retry(lease, in_ms, error))

    async def finish(self, lease: Lease, ending: Ending) -> FinishReply:
        packed = pack(ending)
        ref = await self._payloads.shelve_result(lease, packed)
        return await self._run(self.verbs.finish(lease, ending, packed, ref))

    async def release(self, lease: Lease) -> FinishReply:
        return await self._run(self.verbs.release(lease))

    async def cancel(self, job_id: str) -> FinishReply:
        return await self._run(self.verbs.cancel(job_id))

    async def reap(self, request: ReapRequest) -> ReapReply:
        return await self._run(self.verbs.reap(request))

    async def get(self, job_id: str) -> Job | None:
        with store_errors():
            return job_from_flat(await self.client.hgetall(keys.job(job_id)))

    async def _run(self, call: Call[T]) -> T:
        script = SCRIPTS[call.script]
        with store_errors():
            try:
                raw = await self.client.evalsha(script.sha, 0, *call.args)
            except NoScriptError:
                raw = await self.client.eval(script.source, 0, *call.args)
        return call.parse(raw)

    async def _run_all(self, calls: Sequence[Call[T]]) -> list[T]:
        with store_errors():
            raw = await self._pipeline(calls)
            if any(isinstance(answer, NoScriptError) for answer in raw):
                for name in {call.script for call in calls}:
                    await self.client.script_load(SCRIPTS[name].source)
                raw = await self._pipeline(calls)
            return parse_all(calls, raw)

    async def _pipeline(self, calls: Sequence[Call[T]]) -> list[Any]:
        async with self.client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.evalsha(SCRIPTS[call.script].sha, 0, *call.args)
            return await pipe.execute(raise_on_error=False)
