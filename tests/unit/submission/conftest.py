"""A real Redis, emptied before each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
import redis
import redis.asyncio

from headrace.store.connection import connect, connect_async
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis(fsync="no") as server:
        yield server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
async def async_client(redis_server: RedisServer, client: redis.Redis) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect_async(redis_server.url) as async_client:
        yield async_client
