"""A real S3 (and SQS) API on a port of this machine, for tests: moto's server in a thread. Knows no key of ours.

from tests.moto_server import S3Server, s3_server, s3_url     # fixtures, in a conftest or a test module
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class S3Server:
    """`endpoint_url` is what `blobs.endpoint_url` is to be."""

    endpoint_url: str

    def client(self, service: str = "s3") -> Any:
        """An official client of it; close it."""
        return boto3.session.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        ).client(service, endpoint_url=self.endpoint_url)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(f"http://{host}:{port}")
    server.stop()


@pytest.fixture
def s3_server(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """With the credentials that boto3 looks for."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return moto_server


@pytest.fixture
def s3_url(s3_server: S3Server) -> str:
    """`s3://<a new bucket>/fleet`."""
    name = f"bucket-{uuid4().hex[:12]}"
    client = s3_server.client()
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}/fleet"
