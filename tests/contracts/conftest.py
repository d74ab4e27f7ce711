"""One real Redis for the session, emptied for each test; the memory queue needs nothing."""

from collections.abc import Iterator

import pytest
import redis

from headrace.store.connection import connect
from tests.contracts.bench import Bench, MemoryBench, RedisBench
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_bench(client: redis.Redis) -> RedisBench:
    return RedisBench(client)


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "memory":
        return MemoryBench()
    bench = request.getfixturevalue("redis_bench")
    assert isinstance(bench, RedisBench)
    return bench
