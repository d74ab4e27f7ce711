"""One Redis for the folder's tests, emptied for each."""

from collections.abc import Iterator

import pytest

from tests.integration.workers.fleet import Fleet
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def scaler_redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def fleet(scaler_redis: RedisServer) -> Fleet:
    fleet = Fleet(scaler_redis)
    fleet.client.flushall()
    return fleet
