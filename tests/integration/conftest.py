"""One fleet with the fake engine for all tests of a session that only need some gateway with workers behind it."""

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet, running


@pytest.fixture(scope="session")
def fake_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A hundred steps a second. Tests leave it whole, and find the jobs of others in it."""
    with running(tmp_path_factory.mktemp("fake-fleet"), model="fake:speed=100") as fleet:
        yield fleet
