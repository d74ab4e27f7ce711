"""A job is accepted once its replicas have it: WAIT, over a link that stalls."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from headrace.contract.errors import StoreUnavailable
from headrace.contract.job import State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import Outcome, Timing
from headrace.store import keys
from headrace.store.connection import connect, connect_async
from headrace.submission.replicated import ReplicatedQueue
from tests.chaos.faults.conditions import STALLED, WELL
from tests.chaos.faults.fleet import wait_until
from tests.chaos.faults.proxy import FaultProxy, proxying
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
