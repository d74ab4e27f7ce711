"""A real S3 (and SQS) API on a port of this machine, for tests: moto's server in a thread. Knows no key of ours.

    from tests.moto_server import S3Server, s3_server, s3_url     # fixtures, for a conftest or a test module

Clients are few and shared, since botocore takes a third of a second to make one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from headrace.store.blobs_bucket import Bucket

BUCKET = "headrace"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class S3Server:
    """`endpoint_url` is what `blobs.endpoint_url` is to be; `s3` an official client, `bucket` ours of `BUCKET`."""

    endpoint_url: str
    s3: Any
    bucket: Bucket


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """With the credentials in the environment that boto3 looks for, from here on."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        host, port = server.get_host_and_port()
        endpoint_url = f"http://{host}:{port}"
        s3 = boto3.session.Session().client("s3", endpoint_url=endpoint_url)
        s3.create_bucket(Bucket=BUCKET)
        yield S3Server(endpoint_url, s3, Bucket(BUCKET, endpoint_url=endpoint_url, timeout_s=5.0))
        s3.close()
    server.stop()


@pytest.fixture
def s3_url(s3_server: S3Server) -> str:
    """`s3://<bucket>/<a prefix of one's own>`."""
    return f"s3://{BUCKET}/{uuid4().hex}"
