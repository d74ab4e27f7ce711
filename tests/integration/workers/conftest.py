"""One Redis for the folder's tests, emptied for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.workers.fleet import Fleet
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def worker_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fleet(worker_redis: RedisServer) -> Fleet:
    fleet = Fleet(worker_redis)
    fleet.client.flushall()
    return fleet


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A Redis that the test may kill."""
    server = RedisServer(tmp_path / "r")
    server.start()
    yield Fleet(server)
    server.stop()
