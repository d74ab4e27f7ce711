"""One Redis, one built wheel and two bare environments for the folder's tests."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace.store.connection import connect
from tests.deployment.bare import Bare, install, pip
from tests.deployment.compose import PROFILES, config
from tests.deployment.dockerfile import ROOT
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def deployment_redis() -> Iterator[RedisServer]:
    with running_redis(fsync="everysec") as server:
        yield server


@pytest.fixture
def store(deployment_redis: RedisServer) -> Iterator[redis.Redis]:
    with connect(deployment_redis.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Every service of docker-compose.yml, all profiles together."""
    services: Mapping[str, Any] = config(tmp_path_factory.mktemp("compose"), *PROFILES)["services"]
    return services


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is published."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("headrace-*.whl")
    return built


@pytest.fixture(scope="session")
def stranger(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """A machine on which somebody said `pip install headrace`."""
    return install(tmp_path_factory.mktemp("stranger") / "venv", str(wheel))
