"""A real Redis, emptied before each test."""

from collections.abc import AsyncIterator

import pytest
import redis
import redis.asyncio

from headrace.store.connection import connect_async
from tests.redis_fixtures import client, redis_server
from tests.redis_server import RedisServer

__all__ = ["client", "redis_server"]


@pytest.fixture
async def async_client(redis_server: RedisServer, client: redis.Redis) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect_async(redis_server.url) as async_client:
        yield async_client
