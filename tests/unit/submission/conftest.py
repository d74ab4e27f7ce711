"""A real Redis, emptied before each test."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from headrace.store.connection import connect, connect_async
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    # Not pytest's folder: its names can be too long for a unix socket.
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        server = RedisServer(Path(folder), fsync="no")
        server.start()
        yield server
        server.stop()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
async def async_client(redis_server: RedisServer, client: redis.Redis) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect_async(redis_server.url) as async_client:
        yield async_client
