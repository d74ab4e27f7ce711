"""One Redis for the folder's tests, emptied for each."""

from collections.abc import Iterator

import pytest

from tests.integration.workers.fleet import Fleet
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def scaler_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fleet(scaler_redis: RedisServer) -> Fleet:
    fleet = Fleet(scaler_redis)
    fleet.client.flushall()
    return fleet
