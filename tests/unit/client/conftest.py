"""Every test of a client is asked of both."""

import pytest

from tests.unit.client.both import MakeClient, async_client, sync_client


@pytest.fixture(params=[sync_client, async_client], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> MakeClient:
    make: MakeClient = request.param
    return make
