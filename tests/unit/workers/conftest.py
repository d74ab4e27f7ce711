"""What many tests of a worker's parts begin with."""

import pytest

from tests.unit.workers.desk import Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()
