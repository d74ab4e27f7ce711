"""Dead jobs on a real Redis with their prompts in a blob store, and a process that is killed. Knows no tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from headrace.contract.dead_letter_query import DeadLetterFilter
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Fallback, Job, JobClass, Kind
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import Append, ClaimRequest, ReapRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.store import keys
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.cards import CardBook
from headrace.store.dead_letters import DeadLetters
from headrace.store.payloads import Payloads
from headrace.submission.redrive import Redriver
from tests.unit.submission.announced import CARD, announce

LANE = "small@stable"
OTHER = Fallback("other", "other@stable", "r9", FrozenRequest(tuple(range(50)), Sampling(seed=7), 9))
EVERY = DeadLetterFilter()


class Killed(BaseException):
    """The process is gone at this point."""


class Bench:
    """Dead jobs on a real Redis; prompts of more than 40 bytes lie in a folder."""

    def __init__(self, client: redis.Redis, async_client: redis.asyncio.Redis, folder: Path) -> None:
        announce(client)
        self.client = client
        self.blobs = FolderBlobs(folder)
        self.payloads = Payloads(self.blobs, 40)
        self.queue = RedisQueue(client, Timing(), payloads=self.payloads)
        awaited = AsyncPayloads(self.payloads)
        self.letters = DeadLetters(async_client, awaited)
        self.async_queue = AsyncRedisQueue(async_client, Timing(), payloads=awaited)
        self.told: list[Job] = []
        self.redriver = Redriver(
            self.async_queue, CardBook(async_client, ttl_s=0), self.letters, awaited, Timing(), self.told.append
        )

    def bury(self, prompt: int = 4, **fields: object) -> Job:
        """A job that killed three engines."""
        request = FrozenRequest(tuple(range(prompt)), Sampling(seed=7, temperature=0.3), 16, ("x",))
        job = Job(
            id=new_job_id(),
            model="small",
            lane=LANE,
            revision=CARD.revision,
            job_class=JobClass.BATCH,
            kind=Kind.CHAT,
            request=request,
            traceparent="00-trace",
            metadata={"row": "7"},
        )
        self.queue.accept(replace(job, **fields))  # type: ignore[arg-type]
        self.kill()
        return self.get(job.id)

    def kill(self, count: int = 1) -> None:
        """So many of the jobs that wait kill three engines each."""
        for _ in range(3 * count):
            asked = ClaimRequest((LANE,), "w_1", CARD.revision, "d", 1_000, 1_000, 1)
            (claimed,) = self.queue.claim(asked)
            self.queue.append([Append(claimed.lease)])
            self.queue.reap(ReapRequest("w_1", died=True))

    def get(self, job_id: str) -> Job:
        job = self.queue.get(job_id)
        assert job is not None
        return job

    def parked(self) -> set[str]:
        return self._members(keys.dlq(LANE))

    def queued(self) -> set[str]:
        return self._members(keys.lane(LANE, "batch"))

    def _members(self, key: str) -> set[str]:
        members: Any = self.client.zrange(key, 0, -1)
        return {member.decode() for member in members}

    def blob_keys(self) -> list[str]:
        return [blob.key for blob in self.blobs.listing()]


class Killer:
    """Kills this process at its n-th call to Redis, before the server has heard of it or before its answer is read."""

    def __init__(self, client: redis.asyncio.Redis, patch: pytest.MonkeyPatch) -> None:
        self._call: Any = client.execute_command
        self._left, self._heard = 0, False
        patch.setattr(client, "execute_command", self._watched)

    def at(self, call: int, *, heard: bool) -> None:
        self._left, self._heard = call, heard

    async def _watched(self, *args: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._heard:
            raise Killed
        answer = await self._call(*args, **named)
        if self._left == 0:
            raise Killed
        return answer
