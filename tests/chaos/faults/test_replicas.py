"""A job is accepted once its replicas have it: WAIT, over a link that stalls, and from another server than took it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import pytest
import redis
import redis.asyncio

from gateway.services import open_services
from headrace.contract.errors import StoreUnavailable
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import AcceptReply, Outcome, Timing
from headrace.settings import RedisSettings
from headrace.store import keys
from headrace.store.connection import connect, connect_async
from headrace.submission.intent import Intent
from headrace.submission.replicated import WAITERS, ReplicatedQueue
from tests.chaos.faults.conditions import STALLED, WELL
from tests.chaos.faults.fleet import wait_until
from tests.chaos.faults.proxy import FaultProxy, proxying
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker
from tests.integration.gateway.serving import settings_for
from tests.redis_server import RedisServer, running_redis
from tests.unit.workers.jobs import make_job

JOB = make_job("job_1", state=State.ACCEPTED, lease_id="", epoch=0, idem_key="key")


@pytest.fixture
def primary() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def link(primary: RedisServer) -> Iterator[FaultProxy]:
    with proxying(primary.url) as link:
        yield link


@pytest.fixture
def replica(link: FaultProxy) -> Iterator[redis.Redis]:
    with running_redis() as server, connect(server.url) as client:
        client.replicaof("127.0.0.1", str(link.port))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", 30.0, "a replica in sync")
        yield client


async def test_a_job_is_accepted_once_its_replica_has_it(
    primary: RedisServer, link: FaultProxy, replica: redis.Redis
) -> None:
    async with connect_async(primary.url) as client:
        queue = ReplicatedQueue(AsyncRedisQueue(client, Timing()), client, 1, 200)
        patient = replace(queue, within_ms=4_000)
        assert (await patient.accept(replace(JOB, id="job_0", idem_key=""))).outcome is Outcome.OK
        assert replica.exists(keys.job("job_0"))
        link.set(STALLED)
        for _ in range(2):  # said again it is known, and still not durable
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await queue.accept(JOB, body_hash="b")
        assert not replica.exists(keys.job(JOB.id))
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await queue.accept(replace(JOB, id="job_2"), body_hash="b")
        link.set(WELL)
        reply = await patient.accept(replace(JOB, id="job_2"), body_hash="b")
        assert (reply.outcome, reply.job_id) == (Outcome.EXISTS, JOB.id)
        assert replica.exists(keys.job(JOB.id))


@dataclass(frozen=True, slots=True)
class FailsOver:
    """Each accept reaches the next of these servers, as behind an address that follows the primary."""

    primaries: deque[AsyncRedisQueue]

    async def accept(self, job: Job, *, body_hash: str = "") -> AcceptReply:
        return await self.primaries.popleft().accept(job, body_hash=body_hash)

    async def get(self, job_id: str) -> Job | None:
        raise AssertionError("nobody asks")


@pytest.fixture
async def old_primary() -> AsyncIterator[AsyncRedisQueue]:
    with running_redis() as server:
        async with connect_async(server.url) as client:
            yield AsyncRedisQueue(client, Timing())


@pytest.mark.usefixtures("replica")
async def test_a_job_that_went_with_the_old_primary_is_not_accepted(
    primary: RedisServer, old_primary: AsyncRedisQueue
) -> None:
    """The new one has a replica too, which has everything that the new one has."""
    async with connect_async(primary.url) as client:
        new_primary = AsyncRedisQueue(client, Timing())

        async def submit(*primaries: AsyncRedisQueue) -> AcceptReply:
            return await ReplicatedQueue(FailsOver(deque(primaries)), client, 1, 4_000).accept(JOB, body_hash="b")

        with pytest.raises(StoreUnavailable, match=r"does not have the job.*same Idempotency-Key"):
            await submit(old_primary)
        assert await new_primary.get(JOB.id) is None
        with pytest.raises(StoreUnavailable, match=r"does not have the job.*same Idempotency-Key"):
            await submit(old_primary, new_primary)  # the old one knows it by its key
        assert (await submit(new_primary)).outcome is Outcome.OK
        await client.delete(keys.job(JOB.id))
        again = await ReplicatedQueue(new_primary, client, 1, 4_000).accept(replace(JOB, id="job_2"), body_hash="b")
        assert again == AcceptReply(Outcome.EXISTS, JOB.id)  # past its retention, which is no loss


async def test_a_primary_that_steps_down_lets_go_of_who_waits_there(primary: RedisServer) -> None:
    async with connect_async(primary.url) as client:
        queue = ReplicatedQueue(AsyncRedisQueue(client, Timing()), client, 1, 4_000)
        accepting = asyncio.create_task(queue.accept(JOB))
        await _blocked(client, 1)
        await client.replicaof("127.0.0.1", "9")
        with pytest.raises(StoreUnavailable, match=r"not known.*same Idempotency-Key"):
            await accepting


async def test_who_waits_for_replicas_that_are_gone_holds_up_no_other_call(primary: RedisServer) -> None:
    submits = 100
    redis_settings = RedisSettings(url=primary.url, socket_timeout_s=1, wait_replicas=1, wait_ms=900)
    settings = settings_for(primary.url).model_copy(update={"redis": redis_settings})
    with connect(primary.url) as store:
        ScriptedWorker(store).announce()
        async with open_services(settings, asyncio.Event()) as services:
            intent = Intent(Kind.COMPLETION, MODEL, JobClass.STANDARD, prompt="go", max_tokens=1)
            submitting = [
                asyncio.create_task(services.submitter.submit(intent, idem_key=f"key-{number}"))
                for number in range(submits)
            ]
            await asyncio.to_thread(
                wait_until, lambda: store.zcard(keys.lane(f"{MODEL}@stable", "standard")) == submits, 30.0, "accepts"
            )
            assert await services.queue.get("job_1") is None
            assert store.info("clients")["blocked_clients"] <= WAITERS
            said = await asyncio.gather(*submitting, return_exceptions=True)
    assert all(isinstance(error, StoreUnavailable) and "same Idempotency-Key" in str(error) for error in said)
    assert sum("0 of 1 replicas" in str(error) for error in said) >= WAITERS
    assert any(f"All {WAITERS} connections to Redis were busy for 1.9 s" in str(error) for error in said)


async def _blocked(client: redis.asyncio.Redis, count: int) -> None:
    async with asyncio.timeout(30.0):
        while (await client.info("clients"))["blocked_clients"] != count:
            pass
