"""A metadata server for each test."""

from collections.abc import Iterator

import pytest

from tests.metadata_server import MetadataStandIn, running_metadata


@pytest.fixture
def cloud() -> Iterator[MetadataStandIn]:
    with running_metadata() as server:
        yield server
