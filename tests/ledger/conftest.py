"""Both brokers, once for the session: moto's server for SQS, and a RabbitMQ that starts while others are tested."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from headrace.ledger.base import Ledger
from headrace.store.blobs_folder import FolderBlobs
from tests.ledger.benches import AmqpBench, Bench, SqsBench
from tests.ledger.rabbitmq_server import RabbitMq, rabbitmq_binary, running_rabbitmq
from tests.ledger.sqs_server import one_call_at_a_time
from tests.moto_server import S3Server, s3_server
from tests.redis_fixtures import client, redis_server

__all__ = ["client", "redis_server", "s3_server"]


@pytest.fixture(scope="session", autouse=True)
def _rabbitmq() -> Iterator[RabbitMq | None]:
    """It takes seconds to start, so it begins before anybody needs it."""
    if rabbitmq_binary() is None:
        yield None
        return
    with running_rabbitmq() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(_rabbitmq: RabbitMq | None) -> RabbitMq:
    if _rabbitmq is None:
        missing = "There is no rabbitmq-server here (apt-get install rabbitmq-server)."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    _rabbitmq.wait()
    return _rabbitmq


@pytest.fixture(scope="session", autouse=True)
def _few_words() -> None:
    """Moto's server says every request, and a report of a failure nothing else then."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def _sqs(s3_server: S3Server) -> Iterator[Any]:
    client = boto3.session.Session().client("sqs", endpoint_url=s3_server.endpoint_url)
    with one_call_at_a_time():
        yield client
    client.close()


@pytest.fixture
def sqs_bench(s3_server: S3Server, _sqs: Any) -> Iterator[SqsBench]:
    opened: dict[str, Ledger] = {}
    bench = SqsBench(s3_server.endpoint_url, _sqs, opened)
    yield bench
    bench.close()


@pytest.fixture
def amqp_bench(rabbitmq: RabbitMq) -> Iterator[AmqpBench]:
    bench = AmqpBench(rabbitmq)
    yield bench
    bench.close()


@pytest.fixture(params=["sqs", "amqp"])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(f"{request.param}_bench")
    return found


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    (tmp_path / "blobs").mkdir()  # one that is not there may be a volume that is not mounted
    return FolderBlobs(tmp_path / "blobs")
