"""One fleet on the real model for all end-to-end and kill tests of a session; each leaves it whole."""

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet, running


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("fleet"), model="smollm2-135m-instruct", workers=2) as fleet:
        yield fleet
