"""A real Redis for the tests of one folder, emptied before each. Knows no key.

from tests.redis_fixtures import client, redis_server     # fixtures, for a conftest
"""

from collections.abc import Iterator

import pytest
import redis

from headrace.store.connection import connect
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One that is fast: nothing of it has to survive the machine."""
    with running_redis(fsync="no") as server:
        yield server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url) as client:
        client.flushall()
        yield client
