"""One real Redis and one gateway for the session; the store is emptied and the model announced for each test."""

from collections.abc import Iterator

import httpx2
import pytest
import redis
from openai import OpenAI

from headrace.store.connection import connect
from tests.integration.gateway.scripted_worker import ScriptedWorker
from tests.integration.gateway.serving import Gateway, serving, settings_for
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis(fsync="everysec") as server:
        yield server


@pytest.fixture(scope="session")
def session_gateway(redis_server: RedisServer) -> Iterator[Gateway]:
    with serving(settings_for(redis_server.url)) as gateway:
        yield gateway


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def worker(store: redis.Redis) -> ScriptedWorker:
    worker = ScriptedWorker(store)
    worker.announce()
    return worker


@pytest.fixture
def gateway(session_gateway: Gateway, worker: ScriptedWorker) -> Gateway:
    return session_gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, timeout=20) as client:
        yield client


@pytest.fixture
def openai(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        yield client
