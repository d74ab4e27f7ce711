"""One fleet for the tests of a session that trouble its Redis. Each leaves it whole."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults.fleet import QUICK, FaultFleet, running


@pytest.fixture(scope="session")
def faulty_fleet() -> Iterator[FaultFleet]:
    with tempfile.TemporaryDirectory(prefix="hr-") as folder, running(Path(folder), QUICK) as fleet:
        yield fleet
